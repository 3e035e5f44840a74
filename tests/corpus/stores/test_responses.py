from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pytest

from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.stores.responses import (
    SampledBy,
    StoredResponses,
    _checksum,
    fill,
    row_seed,
)
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.errors import DistillSpecError

PROMPTS = [Prompt(f"key{i}", (1, 2, i), None, f"text {i}", "plain") for i in range(23)]


def store(folder: Path, prompts: list[Prompt] = PROMPTS, **changed: Any) -> StoredResponses:
    settings = {"max_response_tokens": 8, "top_k": None}
    made = {"seed": 3, "temperature": 0.7, "model": "abc123", "settings": settings, **changed}
    return StoredResponses(StoreFolder(folder, "target", ""), prompts, SampledBy(**made), batch=4)


def sampler(prompts: list[Prompt], seeds: list[int]) -> list[list[int]]:
    """Any pure function of a prompt and its seed will do."""
    return [[*p.tokens, seed % 1000] for p, seed in zip(prompts, seeds, strict=True)]


def filled(folder: Path, **changed: Any) -> dict[str, tuple[int, ...]]:
    made = store(folder, **changed)
    fill(made, sampler)
    return made.responses()


def lines(folder: Path) -> list[bytes]:
    (path,) = folder.rglob("rows-*.jsonl")
    return path.read_bytes().splitlines()


def test_every_prompt_gets_its_response(tmp_path: Path) -> None:
    made = store(tmp_path / "store")
    assert not made.complete
    assert sum(map(len, made.missing())) == len(PROMPTS)
    fill(made, sampler)
    assert made.complete
    result = made.responses()
    assert result.keys() == {p.key for p in PROMPTS}
    assert all(result[p.key][:3] == p.tokens for p in PROMPTS)
    assert made.seconds > 0.0


def test_rows_have_seeds_of_their_own() -> None:
    seeds = {row_seed(seed, prompt) for seed in (3, 4) for prompt in PROMPTS}
    assert len(seeds) == 2 * len(PROMPTS)
    again = PROMPTS[0]._replace(tokens=(1, 2, 99))
    assert row_seed(3, again) != row_seed(3, PROMPTS[0])


@pytest.mark.parametrize("whole", range(7))
def test_an_interrupted_generation_gives_what_an_uninterrupted_one_gives(
    tmp_path: Path, whole: int
) -> None:
    """Whatever batch is in flight: it alone is lost, and the stored rows are equal bit by bit."""
    calls = 0

    def failing(prompts: list[Prompt], seeds: list[int]) -> list[list[int]]:
        nonlocal calls
        calls += 1
        if calls > whole:
            raise KeyboardInterrupt
        return sampler(prompts, seeds)

    if whole < 6:
        with pytest.raises(KeyboardInterrupt):
            fill(store(tmp_path / "a"), failing)
    else:
        fill(store(tmp_path / "a"), failing)
    again = store(tmp_path / "a")
    stored = min(4 * whole, 23)
    assert sum(map(len, again.missing())) == 23 - stored
    seen: list[tuple[int, int]] = []
    fill(again, sampler, progress=lambda done, all_: seen.append((done, all_)))
    assert seen[0] == (stored, 23) and seen[-1] == (23, 23)
    assert again.responses() == filled(tmp_path / "b")
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def test_processes_sample_disjoint_rows_and_together_give_what_one_gives(tmp_path: Path) -> None:
    taken: list[list[str]] = [[], []]

    def of(rank: int) -> Any:
        def take(prompts: list[Prompt], seeds: list[int]) -> list[list[int]]:
            taken[rank] += [p.key for p in prompts]
            return sampler(prompts, seeds)

        return take

    for rank in (1, 0):
        fill(store(tmp_path / "two"), of(rank), rank=rank, world=2)
    assert taken[0] and taken[1] and not set(taken[0]) & set(taken[1])
    assert store(tmp_path / "two").responses() == filled(tmp_path / "one")


def test_the_order_of_the_prompts_changes_nothing(tmp_path: Path) -> None:
    whole = filled(tmp_path)
    turned = store(tmp_path, PROMPTS[::-1])
    assert turned.complete
    assert turned.responses() == whole


def test_other_prompts_take_the_rows_that_are_there_and_sample_the_rest(tmp_path: Path) -> None:
    first = filled(tmp_path, prompts=PROMPTS[:9])
    asked: list[str] = []

    def noting(prompts: list[Prompt], seeds: list[int]) -> list[list[int]]:
        asked.extend(p.key for p in prompts)
        return sampler(prompts, seeds)

    changed = PROMPTS[3]._replace(tokens=(7, 7, 7))
    more = store(tmp_path, [*PROMPTS[:3], changed, *PROMPTS[4:]])
    fill(more, noting)
    assert sorted(asked) == sorted(["key3", *(p.key for p in PROMPTS[9:])])
    result = more.responses()
    assert {key: result[key] for key in first if key != "key3"} == {
        key: response for key, response in first.items() if key != "key3"
    }
    assert result["key3"][:3] == (7, 7, 7)
    assert store(tmp_path, PROMPTS[:9]).responses() == first


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"temperature": 1.0},
        {"model": "def456"},
        {"settings": {"max_response_tokens": 9, "top_k": None}},
    ],
    ids=str,
)
def test_another_way_of_sampling_is_another_store_and_what_is_there_is_kept(
    change: dict[str, Any], tmp_path: Path
) -> None:
    whole = filled(tmp_path)
    second = store(tmp_path, **change)
    assert sum(map(len, second.missing())) == len(PROMPTS)
    assert store(tmp_path).responses() == whole


def test_missing_responses_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill(made, sampler, rank=0, world=2)
    with pytest.raises(DistillSpecError, match="11 of 23 target responses are not sampled"):
        made.responses()


@pytest.mark.parametrize("bit", [0, 3, 6])
@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_a_damaged_row_is_an_error_and_is_sampled_again_when_it_is_deleted(
    tmp_path: Path, position: float, bit: int
) -> None:
    whole = filled(tmp_path)
    (path,) = tmp_path.rglob("rows-*.jsonl")
    content = path.read_bytes().splitlines(keepends=True)
    line = bytearray(content[5])
    line[int(position * len(line))] ^= 1 << bit
    path.write_bytes(b"".join([*content[:5], bytes(line), *content[6:]]))
    with pytest.raises(DistillSpecError, match="a stored response cannot be read: it is") as caught:
        store(tmp_path).responses()
    assert caught.value.where == f"{path}, line 6"
    path.write_bytes(b"".join([*content[:5], *content[6:]]))
    assert filled(tmp_path) == whole


@pytest.mark.parametrize("token", [300, -1, 2**40])
def test_a_token_outside_the_vocabulary_is_an_error_that_names_its_line(
    tmp_path: Path, token: int
) -> None:
    settings = {"vocabulary": 300}
    fill(store(tmp_path, settings=settings), lambda prompts, seeds: [[7, 299]] * len(prompts))
    (path,) = tmp_path.rglob("rows-*.jsonl")
    row = json.loads(lines(tmp_path)[2])
    del row["check"]
    row["response"][1] = token
    written = [*lines(tmp_path), json.dumps({**row, "check": _checksum(row)}).encode()]
    path.write_bytes(b"".join(line + b"\n" for line in written))
    with pytest.raises(DistillSpecError, match="outside .* 300") as caught:
        store(tmp_path, settings=settings).responses()
    assert caught.value.where == f"{path}, line {len(written)}"


def test_rows_are_lines_that_a_data_set_library_reads(tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = tmp_path.rglob("rows-*.jsonl")
    rows = datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "cache"))
    assert {"key", "response"} <= set(rows.column_names)
    assert rows.num_rows == len(PROMPTS)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DistillSpecError, match="cannot write here"):
        fill(store(tmp_path / "file" / "store"), sampler)


def test_a_store_that_is_only_looked_at_is_not_begun(tmp_path: Path) -> None:
    made = store(tmp_path)
    assert made.known() == {}
    assert not list(tmp_path.iterdir())
    fill(made, sampler, rank=0, world=2)
    assert len(made.known()) == 12


def test_the_manifest_holds_how_the_responses_were_made(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill(made, sampler)
    entries = json.loads((made.folder / "manifest.json").read_text())
    assert entries["settings.max_response_tokens"] == 8
    assert entries.items() >= {"seed": 3, "temperature": 0.7, "model": "abc123"}.items()


def test_a_killed_process_loses_nothing_it_had_stored_and_another_goes_on(tmp_path: Path) -> None:
    """kill -9 of a real process, as soon as it has stored some batches."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.corpus.stores.test_responses import fill, sampler, store\n"
        "def slowly(prompts, seeds):\n"
        "    time.sleep(0.3); return sampler(prompts, seeds)\n"
        "fill(store(Path(sys.argv[1])), slowly)\n"
    )
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", program, str(folder)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + 120
        while not list(folder.rglob("rows-*")) or len(lines(folder)) < 8:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = store(folder)
    assert 0 < sum(map(len, again.missing())) < len(PROMPTS)
    before = lines(folder)
    fill(again, sampler)
    assert again.responses() == filled(tmp_path / "whole")
    assert lines(folder)[: len(before)] == before
    assert lines(folder) == lines(tmp_path / "whole")
