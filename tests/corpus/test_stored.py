from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pytest

from distillspec.corpus.prompts import Prompt
from distillspec.corpus.stored import StoredResponses, fill, prompts_digest
from distillspec.errors import DistillSpecError

PROMPTS = [Prompt(f"key{i}", (1, 2, i), None, f"text {i}", "plain") for i in range(23)]
SETTINGS: dict[str, Any] = {"seed": 3, "temperature": 0.7, "model": "abc123"}


def store(folder: Path, prompts: list[Prompt] = PROMPTS, **changed: Any) -> StoredResponses:
    made = {"settings": {"max_response_tokens": 8, "top_k": None}, "batch": 4, **SETTINGS}
    return StoredResponses(folder, prompts, **(made | changed))


def sampler(prompts: list[Prompt], seed: int) -> list[list[int]]:
    """Any pure function of prompts and seed will do."""
    return [[*p.tokens, seed % 1000 + place] for place, p in enumerate(prompts)]


def filled(folder: Path) -> dict[str, tuple[int, ...]]:
    made = store(folder)
    fill(made, sampler)
    return made.responses()


def test_every_prompt_gets_its_response(tmp_path: Path) -> None:
    made = store(tmp_path / "store")
    assert not made.complete
    assert sorted(made.missing_keys()) == sorted(p.key for p in PROMPTS)
    fill(made, sampler)
    assert made.complete
    found = made.responses()
    assert found.keys() == {p.key for p in PROMPTS}
    assert all(found[p.key][:3] == p.tokens for p in PROMPTS)


def test_batches_have_seeds_of_their_own(tmp_path: Path) -> None:
    made = store(tmp_path)
    seeds = [made.batch_seed(i) for i in range(made.batches)]
    assert len(set(seeds)) == made.batches == 6
    assert seeds != [store(tmp_path / "other", seed=4).batch_seed(i) for i in range(6)]


def test_an_interrupted_generation_gives_what_an_uninterrupted_one_gives(tmp_path: Path) -> None:
    calls = 0

    def failing(prompts: list[Prompt], seed: int) -> list[list[int]]:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return sampler(prompts, seed)

    with pytest.raises(KeyboardInterrupt):
        fill(store(tmp_path / "a"), failing)
    again = store(tmp_path / "a")
    assert again.missing() == [2, 3, 4, 5]
    seen: list[tuple[int, int]] = []
    fill(again, sampler, progress=lambda done, all_: seen.append((done, all_)))
    assert seen == [(n, 6) for n in range(2, 7)]
    assert again.responses() == filled(tmp_path / "b")


def test_processes_sample_disjoint_batches_and_together_give_what_one_gives(
    tmp_path: Path,
) -> None:
    taken: list[list[str]] = [[], []]

    def of(rank: int) -> Any:
        def take(prompts: list[Prompt], seed: int) -> list[list[int]]:
            taken[rank] += [p.key for p in prompts]
            return sampler(prompts, seed)

        return take

    for rank in (1, 0):
        fill(store(tmp_path / "two"), of(rank), rank=rank, world=2)
    assert not set(taken[0]) & set(taken[1])
    assert store(tmp_path / "two").responses() == filled(tmp_path / "one")


def test_the_order_of_the_prompts_changes_nothing(tmp_path: Path) -> None:
    whole = filled(tmp_path)
    turned = store(tmp_path, PROMPTS[::-1])
    assert turned.complete
    assert turned.responses() == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, "seed: stored 3, now 4"),
        ({"temperature": 1.0}, "temperature: stored 0.7, now 1.0"),
        ({"model": "def456"}, 'model: stored "abc123", now "def456"'),
        ({"batch": 8}, "batch: stored 4, now 8"),
        (
            {"settings": {"max_response_tokens": 9, "top_k": None}},
            "settings.max_response_tokens: stored 8, now 9",
        ),
        ({"prompts": PROMPTS[1:]}, "prompts: stored"),
    ],
)
def test_a_changed_manifest_is_an_error_that_says_what_differs_and_keeps_what_is_stored(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    whole = filled(tmp_path)
    with pytest.raises(DistillSpecError) as caught:
        store(tmp_path, **change)
    assert said in caught.value.what
    assert caught.value.what.count("now") == 1
    assert "data.store" in caught.value.mend
    assert store(tmp_path).responses() == whole


def test_a_manifest_that_is_no_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DistillSpecError, match="cannot be read"):
        store(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DistillSpecError, match="cannot be read"):
        store(tmp_path)


def test_the_manifest_says_how_the_responses_were_made(tmp_path: Path) -> None:
    filled(tmp_path)
    entries = json.loads((tmp_path / "manifest.json").read_text())
    assert entries.items() >= SETTINGS.items()
    assert entries["settings.max_response_tokens"] == 8
    assert entries["prompts"] == prompts_digest(PROMPTS)


def test_missing_responses_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    made = store(tmp_path)
    fill(made, sampler, rank=0, world=2)
    with pytest.raises(DistillSpecError, match="11 of 23 target responses are not sampled"):
        made.responses()


def test_a_damaged_batch_is_an_error_and_is_sampled_anew_when_it_is_deleted(
    tmp_path: Path,
) -> None:
    whole = filled(tmp_path)
    place = tmp_path / "batch-000003"
    (arrow,) = place.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(DistillSpecError, match="damaged") as caught:
        store(tmp_path).responses()
    assert caught.value.where == str(place)
    shutil.rmtree(place)
    assert filled(tmp_path) == whole


def test_batches_are_data_sets_that_the_library_reads(tmp_path: Path) -> None:
    filled(tmp_path)
    rows = datasets.load_from_disk(str(tmp_path / "batch-000000"))
    assert rows.column_names == ["key", "response"]
    assert rows.num_rows == 4


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DistillSpecError, match="cannot write here"):
        store(tmp_path / "file" / "store")


def test_a_killed_process_loses_nothing_it_had_stored_and_another_goes_on(tmp_path: Path) -> None:
    """kill -9 of a real process, as soon as it has stored some batches."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_stored import fill, sampler, store\n"
        "def slowly(prompts, seed):\n"
        "    time.sleep(0.3); return sampler(prompts, seed)\n"
        "fill(store(Path(sys.argv[1])), slowly)\n"
    )
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", program, str(folder), str(Path(__file__).parent)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 120
        while not (folder / "batch-000001").exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = store(folder)
    assert 0 < len(again.missing()) < again.batches
    kept = {place: place.stat().st_mtime_ns for place in folder.glob("batch-*")}
    fill(again, sampler)
    assert again.responses() == filled(tmp_path / "whole")
    assert all(place.stat().st_mtime_ns == time_ for place, time_ in kept.items())
    assert not list(folder.glob(".batch-*"))
