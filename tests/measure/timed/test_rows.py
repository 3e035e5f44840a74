"""rows.jsonl survives a kill at any moment. A broken line is an error, an unfinished one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.timed.rows import FATES, CellRow, DraftedAt, RowLog, drafted_at, letters
from distillspec.speculation.records import Counts, Generation, RoundRecord, TokenStatus

DOCUMENTS = ["one.py", "one.py", "two.py", "three.py"]


def a_row(prompt: int, draft: str | None) -> CellRow:
    return CellRow(
        prompt=prompt,
        prompt_key=f"ä{prompt}\n",
        temperature=0.5,
        draft=draft,
        method=draft and "standard",
        gamma=draft and 2,  # type: ignore[arg-type]
        repeat=0,
        place=0,
        run="run-1",
        seconds=0.25,
        prefill_seconds=0.01,
        tokens=[5, 6, 7],
        fates="aac",
        counts=Counts(tokens=3, verifications=1, emitted=3, accepted=2, accepted_at=(1, 1)),
        rounds=[DraftedAt(9, 2, 2)] if draft else [],
        category="code" if prompt else None,
        document=DOCUMENTS[prompt],
    )


def block(prompt: int) -> list[CellRow]:
    return [a_row(prompt, None), a_row(prompt, "distilled")]


def test_rows_read_back_as_they_were_written(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl", rows_per_block=2, documents=DOCUMENTS)
    log.append(block(0))
    log.append(block(1))
    again = RowLog(tmp_path / "rows.jsonl", rows_per_block=2, documents=DOCUMENTS)
    assert again.rows == log.rows == [*block(0), *block(1)]
    assert again.has((1, 0.5))
    assert not again.has((2, 0.5))


@pytest.mark.parametrize("lost", [2, 30, 200])
def test_a_kill_in_the_middle_of_a_block_loses_that_block_alone(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    log = RowLog(path, rows_per_block=2, documents=DOCUMENTS)
    log.append(block(0))
    whole = path.read_bytes()
    log.append(block(1))
    path.write_bytes(path.read_bytes()[:-lost])
    assert RowLog(path, rows_per_block=2, documents=DOCUMENTS).rows == block(0)
    assert path.read_bytes() == whole


def test_a_line_broken_in_the_middle_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowLog(path, rows_per_block=2, documents=DOCUMENTS).append(block(0))
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second.replace('"gamma": 2, ', "") + first)
    with pytest.raises(DistillSpecError) as caught:
        RowLog(path, rows_per_block=2, documents=DOCUMENTS)
    assert caught.value.where.endswith("line 2")


def test_a_block_is_complete_or_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        RowLog(tmp_path / "rows.jsonl", rows_per_block=2, documents=DOCUMENTS).append(block(0)[:1])


def test_rows_cannot_be_appended_to_a_folder(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl", rows_per_block=2, documents=DOCUMENTS)
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(DistillSpecError):
        log.append(block(0))


def test_every_fate_has_a_letter_of_its_own() -> None:
    text = Generation([1, 2, 3, 4], list(TokenStatus), [], 0.0, 0.0, False)
    assert letters(text) == "acbp"
    assert [FATES[letter] for letter in "acbp"] == ["accepted", "corrected", "bonus", "plain"]


def test_a_block_is_a_prompt_at_a_temperature() -> None:
    assert a_row(3, None).block == (3, 0.5)
    assert replace(a_row(3, None), temperature=0.0).block == (3, 0.0)


def test_a_round_is_placed_behind_the_prompt_and_all_that_was_emitted_before_it() -> None:
    rounds = [
        RoundRecord(drafted=2, accepted=2, emitted=3, draft_steps=2, cut=False),
        RoundRecord(drafted=0, accepted=0, emitted=1, draft_steps=0, cut=False),
        RoundRecord(drafted=2, accepted=1, emitted=2, draft_steps=2, cut=False),
        RoundRecord(drafted=1, accepted=1, emitted=1, draft_steps=1, cut=True),
    ]
    text = Generation([0] * 7, [], rounds, 0.0, 0.0, False)
    assert drafted_at(text, 10) == [DraftedAt(10, 2, 2), DraftedAt(14, 2, 1)]


def test_rows_from_before_documents_were_kept_get_those_of_their_prompts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowLog(path, rows_per_block=2, documents=DOCUMENTS).append(block(2))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line.pop("document") for line in lines} == {"two.py"}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (plain, drafted) = RowLog(path, rows_per_block=2, documents=DOCUMENTS).rows
    assert (plain.unit, drafted.unit) == ("two.py", "two.py")
    assert replace(plain, document=None).unit == "prompt 2"


@pytest.mark.parametrize("key", ["rounds", "category"])
def test_rows_from_before_a_key_was_measured_are_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowLog(path, rows_per_block=2, documents=DOCUMENTS).append(block(0))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    old = [{name: value for name, value in line.items() if name != key} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.raises(DistillSpecError, match=key) as caught:
        RowLog(path, rows_per_block=2, documents=DOCUMENTS)
    assert "an earlier version" in caught.value.fix
