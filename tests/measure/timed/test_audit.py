"""audit.jsonl reads back, survives a kill, and names a foreign line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.timed.audit import AuditedRound, Decoded, append, keep_blocks, read
from distillspec.speculation.records import RoundAudit, RoundRecord, TokenStatus

TEXT = Decoded(3, "ä.py:1", 0.5, "distilled", "ucbspec", 8)


def a_record(drafted: int, accepted: int, emitted: int | None = None) -> RoundRecord:
    audit = RoundAudit("standard@4", (0.5,) * drafted, 0.001, 0.002, 0.0005)
    emitted = accepted + 1 if emitted is None else emitted
    return RoundRecord(drafted, accepted, emitted, drafted, cut=False, audit=audit)


def a_round(**changes: Any) -> AuditedRound:
    return AuditedRound(**{**vars(TEXT.line(0, a_record(4, 2), TokenStatus.CORRECTED)), **changes})


def test_a_line_tells_its_text_its_arm_and_its_counts() -> None:
    one = a_round()
    assert (one.method, one.gamma, one.arm) == ("ucbspec", 8, "standard@4")
    assert (one.drafted, one.accepted, one.emitted, one.fate) == (4, 2, 3, "corrected")
    assert (one.draft_ms, one.verify_ms, one.other_ms) == (1.0, 2.0, 0.5)
    assert one.block == (3, 0.5)


def test_the_fate_of_a_round_is_that_of_the_last_token_it_emitted() -> None:
    fates = [
        TokenStatus.ACCEPTED,
        TokenStatus.ACCEPTED,
        TokenStatus.BONUS,
        TokenStatus.PLAIN,
        TokenStatus.ACCEPTED,
    ]
    records = [a_record(2, 2), a_record(0, 0), a_record(3, 2, emitted=1)]
    lines = TEXT.lines(records, fates)
    assert [line.fate for line in lines] == ["bonus", "plain", "accepted"]
    assert [line.round for line in lines] == [0, 1, 2]
    partly = TEXT.lines([records[0]._replace(audit=None), *records[1:]], fates)
    assert partly == lines[1:]


def test_rounds_read_back_as_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert read(path) == []
    append(path, [a_round(), a_round(round=1)])
    append(path, [a_round(prompt=4)])
    assert read(path) == [a_round(), a_round(round=1), a_round(prompt=4)]


@pytest.mark.parametrize("lost", [1, 30])
def test_a_line_that_a_kill_left_unfinished_is_passed_over(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    append(path, [a_round(), a_round(round=1)])
    path.write_bytes(path.read_bytes()[:-lost])
    assert read(path)[:1] == [a_round()]
    assert len(read(path)) == 1


def test_rounds_of_blocks_that_were_not_finished_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    keep_blocks(path, set())
    assert not path.exists()
    append(path, [a_round(), a_round(prompt=4), a_round(temperature=1.0)])
    path.write_bytes(path.read_bytes() + b'{"prompt": 5, ')
    keep_blocks(path, {(3, 0.5)})
    assert read(path) == [a_round()]
    assert path.read_bytes().endswith(b"}\n")


def test_a_line_of_another_kind_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    append(path, [a_round()])
    path.write_text(path.read_text() + '{"prompt": 1}\n')
    with pytest.raises(
        DistillSpecError, match="a round of this audit cannot be read: .* is missing"
    ) as caught:
        read(path)
    assert caught.value.where.endswith("line 2")


def test_a_place_that_cannot_be_written_to_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="the folder of this file is gone"):
        append(tmp_path / "nowhere" / "audit.jsonl", [a_round()])


def test_rounds_are_not_glued_to_a_line_that_was_left_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    append(path, [a_round(), a_round(round=1)])
    whole = path.read_bytes()
    for kept in (len(whole) - 30, 30):
        path.write_bytes(whole[:kept])
        before = read(path)
        append(path, [a_round(round=7)])
        assert read(path) == [*before, a_round(round=7)]


@pytest.mark.parametrize(
    "theirs", ['{"prompt": "def f(x):"}\n', '{"prompt": "a"}', "notes\n", "\n"]
)
def test_rounds_are_not_added_to_a_file_of_the_users(theirs: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(theirs)
    with pytest.raises(DistillSpecError, match="first line is not a round of an audit"):
        append(path, [])
    assert path.read_text() == theirs


def test_a_named_pipe_is_no_file_for_an_audit(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DistillSpecError, match="the file of the audit is a named pipe"):
        append(tmp_path / "pipe", [a_round()])
