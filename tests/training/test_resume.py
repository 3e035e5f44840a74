from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.training.resume import Position, load_best, note_best
from distillspec.training.state_file import read_state, write_state
from tests.training import tiny_run

PLAN: dict[str, Any] = {
    "distill": {
        "source": {"fixed": 0.5, "draft": 0.5},
        "max_steps": 8,
        "checkpoint_every_steps": 2,
        "probe": {"every_steps": 3, "prompts": 2, "gamma": 2, "max_new_tokens": 6},
    }
}
CLOCKS = ("seconds", "per_second")  # columns that no two runs share


def _trace(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what clocks wrote: the text of the numbers, so equal means bit-equal."""
    rows = tiny_run.rows_of(folder)
    return [{k: v for k, v in row.items() if not k.endswith(CLOCKS)} for row in rows]


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    state = read_state(folder / "last.ckpt")
    return state["state_dict"] | {
        f"{number}/{index}/{name}": value
        for number, optimizer in enumerate(state["optimizer_states"])
        for index, values in optimizer["state"].items()
        for name, value in values.items()
    }


def _kill_after_row(pair: Path, folder: Path, step: int, plan: dict[str, Any]) -> list[bytes]:
    """Run in a process of its own, kill -9 it once `step` is in metrics.csv; the file's lines."""
    job = {"folder": str(folder), "recipe": plan, "sleeps_at": step + 1}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.tiny_run", str(pair), json.dumps([job])],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    rows = folder / "metrics.csv"
    try:
        deadline = time.monotonic() + 300
        while not (rows.exists() and f"\n{step}," in rows.read_text()):
            assert process.poll() is None, "the run ended by itself"
            assert time.monotonic() < deadline, "the run never came to its step"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return rows.read_bytes().splitlines(keepends=True)


REPLAYED = {"source": {"draft": 0.25, "speculative": 0.25, "replay": 0.5}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"kind": "muon"}},
        {"distill": {**PLAN["distill"], **REPLAYED}},
        {"optimizer": {"ema": 0.9, "layer_decay": 0.5}},
    ],
    ids=["adamw", "muon", "replay", "average"],
)
def test_a_killed_run_goes_on_bit_for_bit_as_if_nothing_had_happened(
    tiny_pair: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plan = {**PLAN, **changes}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tiny_run.run(tiny_run.parts(tiny_pair, tiny_run.recipe(**plan)), whole)

    before = _kill_after_row(tiny_pair, killed, 5, plan)
    assert before[-1].startswith(b"5,")
    done = read_state(killed / "last.ckpt")["position"]["step"]
    assert done == 4  # so row 5 is of a step that must be made again

    outcome = tiny_run.run(tiny_run.parts(tiny_pair, tiny_run.recipe(**plan)), killed, resume=True)
    after = (killed / "metrics.csv").read_bytes().splitlines(keepends=True)
    kept = done + 2  # header and step 0 too
    assert after[:kept] == before[:kept]
    first_new = int(after[kept].split(b",")[0])
    assert first_new == done + 1 > 0
    assert [int(row["step"]) for row in _trace(killed)] == list(range(9))
    assert _trace(killed) == _trace(whole)
    assert outcome.steps == 8
    expected, found = _tensors(whole), _tensors(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    best = [read_state(folder / "best.ckpt") for folder in (whole, killed)]
    assert (best[0]["step"], best[0]["alpha"]) == (best[1]["step"], best[1]["alpha"])


def test_a_better_draft_that_was_kept_after_the_checkpoint_is_known_after_a_resumption(
    tiny_pair: Path, tmp_path: Path
) -> None:
    plan = tiny_run.recipe(**{**PLAN, "distill": {**PLAN["distill"], "max_steps": 4}})
    tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    best = read_state(tmp_path / "best.ckpt")
    lost = {**best, "step": 7, "alpha": 0.999}  # a life that was killed before its checkpoint
    write_state(lost, tmp_path / "best.ckpt")
    further = tiny_run.recipe(**PLAN)
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, further), tmp_path, resume=True)
    assert (outcome.best_step, outcome.best_alpha) == (7, 0.999)
    kept = read_state(tmp_path / "best.ckpt")
    assert (kept["step"], kept["alpha"]) == (7, 0.999)
    of_this_start = [float(row["train/response_tokens"]) for row in tiny_run.rows_of(tmp_path)[5:]]
    assert outcome.response_tokens - outcome.tokens_before == sum(of_this_start)


def test_a_checkpoint_holds_the_draft_only(tiny_pair: Path, tmp_path: Path) -> None:
    made = tiny_run.parts(tiny_pair, tiny_run.recipe())
    tiny_run.run(made, tmp_path)
    state = read_state(tmp_path / "last.ckpt")
    assert set(state) == {"state_dict", "optimizer_states", "position", "data", "rollout"}
    draft = {f"draft.{name}": value for name, value in made.draft.state_dict().items()}
    assert {n: v.shape for n, v in state["state_dict"].items()} == {
        n: v.shape for n, v in draft.items()
    }
    optimised = state["optimizer_states"][0]["state"]
    assert len(optimised) == len(list(made.draft.parameters()))
    assert set(read_state(tmp_path / "best.ckpt")["weights"]) == {
        name for name, _ in made.draft.named_parameters()
    }


def test_resuming_a_finished_run_changes_nothing(tiny_pair: Path, tmp_path: Path) -> None:
    first = tiny_run.run(tiny_run.parts(tiny_pair, tiny_run.recipe()), tmp_path)
    rows = (tmp_path / "metrics.csv").read_bytes()
    made = tiny_run.parts(tiny_pair, tiny_run.recipe())
    again = tiny_run.run(made, tmp_path, resume=True)
    apart = {"peak_memory_bytes": 0, "seconds_by_phase": {}, "tokens_before": 0}
    assert again._replace(**apart) == first._replace(**apart)
    assert (first.tokens_before, again.tokens_before) == (0, first.response_tokens)
    assert (tmp_path / "metrics.csv").read_bytes() == rows
    best = read_state(tmp_path / "best.ckpt")["weights"]
    assert all(torch.equal(p, best[name]) for name, p in made.draft.named_parameters())


def test_resuming_with_other_data_is_an_error(tiny_pair: Path, tmp_path: Path) -> None:
    tiny_run.run(tiny_run.parts(tiny_pair, tiny_run.recipe()), tmp_path)
    other = tiny_run.recipe(seed=5, distill={"max_steps": 9})
    with pytest.raises(DistillSpecError, match="seed"):
        tiny_run.run(tiny_run.parts(tiny_pair, other), tmp_path, resume=True)


def test_a_folder_without_a_checkpoint_starts_from_the_beginning(
    tiny_pair: Path, tmp_path: Path
) -> None:
    made = tiny_run.parts(tiny_pair, tiny_run.recipe())
    assert tiny_run.run(made, tmp_path, resume=True).steps == 4


def test_a_best_checkpoint_of_another_draft_is_an_error(tiny_pair: Path, tmp_path: Path) -> None:
    draft = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    write_state({"weights": {"foreign": torch.zeros(1)}}, tmp_path / "best.ckpt")
    with pytest.raises(DistillSpecError, match="another draft: it has 'foreign'"):
        load_best(draft, tmp_path / "best.ckpt")


def test_a_damaged_last_checkpoint_falls_back_and_the_run_ends_bit_for_bit(
    tiny_pair: Path, tmp_path: Path
) -> None:
    plan = tiny_run.recipe(**PLAN)
    tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    expected, trace = _tensors(tmp_path), _trace(tmp_path)
    assert read_state(tmp_path / "last.previous.ckpt")["position"]["step"] == 6
    damaged = bytearray((tmp_path / "last.ckpt").read_bytes())
    damaged[len(damaged) // 3] ^= 16
    (tmp_path / "last.ckpt").write_bytes(damaged)
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path, resume=True)
    assert outcome.steps == 8
    found = _tensors(tmp_path)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert _trace(tmp_path) == trace


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_best_checkpoint_that_cannot_be_read_is_the_users_error(
    tiny_pair: Path, tmp_path: Path, how: str
) -> None:
    plan = tiny_run.recipe()
    tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    best = tmp_path / "best.ckpt"
    if how == "gone":
        best.unlink()
    else:
        best.write_bytes(best.read_bytes()[:-80])
    with pytest.raises(DistillSpecError) as caught:
        tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path, resume=True)
    assert caught.value.where == str(best)
    assert {"gone": "last.ckpt", "damaged": "*.ckpt"}[how] in caught.value.fix


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "3"},
        {"alpha": None},
        {"weights": []},
        {"weights": {"lm_head.weight": "x"}},
        {"weights": {"lm_head.weight": torch.zeros(3, 3)}},
        {"weights": {0: torch.zeros(1)}},
    ],
)
def test_a_best_draft_of_other_content_is_refused(
    changes: dict[str, Any], tiny_pair: Path, tmp_path: Path
) -> None:
    draft = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    path = tmp_path / "best.ckpt"
    write_state({"step": 3, "alpha": 0.5, "nats": None, "weights": {}, **changes}, path)
    with pytest.raises(DistillSpecError) as caught:
        note_best(path, Position())
        load_best(draft, path)
    assert caught.value.where == str(path)
