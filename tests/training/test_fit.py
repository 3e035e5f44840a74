from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.training.fit import FitInputs, fit
from distillspec.training.resume import LAST
from distillspec.training.state_file import previous_of, read_state
from tests.full_disk import no_file_larger_than
from tests.training import tiny_run


def test_a_run_fills_its_folder_and_leaves_the_best_draft(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={"source": {"fixed": 0.5, "draft": 0.25, "target": 0.25}})
    made = tiny_run.parts(tiny_pair, plan)
    outcome = tiny_run.run(made, tmp_path)

    rows = tiny_run.rows_of(tmp_path)
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4]
    probed = {int(row["step"]): float(row["probe/alpha"]) for row in rows if row["probe/alpha"]}
    assert sorted(probed) == [0, 1, 2, 4]  # every 2, and once before
    assert all(1.0 <= float(row["probe/tau_tokens"]) <= 3.0 for row in rows[::2])
    assert outcome.steps == 4
    assert outcome.best_alpha == max(probed.values()) == probed[outcome.best_step]
    tokens = sum(float(row["train/response_tokens"]) for row in rows[1:])
    assert outcome.response_tokens == tokens
    assert set(outcome.seconds_by_phase) == {"rollout", "target", "update", "probe", "checkpoint"}
    assert 0.0 < outcome.seconds < sum(outcome.seconds_by_phase.values())
    assert outcome.peak_memory_bytes > 1 << 20
    assert list((tmp_path / "tensorboard").glob("events*"))

    best = read_state(tmp_path / "best.ckpt")
    assert (best["step"], best["alpha"]) == (outcome.best_step, outcome.best_alpha)
    for name, parameter in made.draft.named_parameters():
        assert torch.equal(parameter, best["weights"][name])


def test_training_raises_alpha_on_held_out_prompts(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(
        distill={
            "source": {"draft": 1.0},
            "max_steps": 40,
            "batch_size": 16,
            "probe": {"every_steps": 40, "prompts": 4},
        },
        optimizer={"learning_rate": 2e-2},
    )
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    first, *_, last = tiny_run.rows_of(tmp_path)
    assert outcome.best_step == 40
    assert float(last["probe/alpha"]) > float(first["probe/alpha"]) + 0.02


def test_the_control_needs_no_target_and_no_probe(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={"divergence": "nll", "source": {"fixed": 1.0}})
    made = tiny_run.parts(tiny_pair, plan)
    inputs = FitInputs(
        plan,
        draft=made.draft,
        target=None,
        tokenizer=made.tokenizer,
        data_module=made.data,
        probe=None,
    )
    outcome = fit(inputs, folder=tmp_path, label="control", resume=False)
    assert outcome.best_step == outcome.steps == 4
    assert math.isnan(outcome.best_alpha)
    assert all(row["train/alpha"] == "nan" for row in tiny_run.rows_of(tmp_path))


def test_bfloat16_products_keep_float32_masters(tiny_pair: Path, tmp_path: Path) -> None:
    traces = {}
    for precision in ("float32", "bfloat16"):
        plan = tiny_run.recipe(
            distill={"source": {"fixed": 1.0}},
            hardware={"precision": precision, "device": "cpu"},
        )
        made = tiny_run.parts(tiny_pair, plan)
        tiny_run.run(made, tmp_path / precision)
        assert all(p.dtype == torch.float32 for p in made.draft.parameters())
        rows = tiny_run.rows_of(tmp_path / precision)[1:]
        traces[precision] = [float(row["train/divergence_nats"]) for row in rows]
    assert traces["bfloat16"] != traces["float32"]
    assert traces["bfloat16"] == pytest.approx(traces["float32"], rel=0.03)


@pytest.mark.parametrize("use_dora", [False, True])
def test_only_adapters_are_trained_and_kept_with_lora(
    tiny_pair: Path, tmp_path: Path, use_dora: bool
) -> None:
    lora = {"rank": 2, "use_dora": use_dora}
    plan = tiny_run.recipe(distill={"source": {"draft": 1.0}}, lora=lora)
    made = tiny_run.parts(tiny_pair, plan)
    before = {n: p.detach().clone() for n, p in made.draft.named_parameters()}
    outcome = tiny_run.run(made, tmp_path)
    weights = read_state(tmp_path / "best.ckpt")["weights"]
    assert weights
    assert all("lora_" in name for name in weights)
    changed = {n for n, p in made.draft.named_parameters() if not torch.equal(p, before[n])}
    assert changed == (set(weights) if outcome.best_step else set())


def test_the_time_limit_ends_a_run_and_probes_do_not_count(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(
        distill={
            "source": {"fixed": 1.0},
            "max_steps": 100_000,
            "max_minutes": 0.3 / 60.0,
            "probe": {"every_steps": 5, "prompts": 2},
        }
    )
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    assert 1 <= outcome.steps < 100_000
    assert 0.3 <= outcome.seconds < 3.0
    rows = tiny_run.rows_of(tmp_path)
    assert len(rows) == outcome.steps + 1
    assert float(rows[-1]["train/learning_rate"]) < float(rows[2]["train/learning_rate"])


def test_a_loss_that_is_not_finite_stops_the_run_before_it_does_harm(
    tiny_pair: Path, tmp_path: Path
) -> None:
    plan = tiny_run.recipe(distill={"source": {"fixed": 1.0}, "max_steps": 9})
    made = tiny_run.parts(tiny_pair, plan)

    def poison() -> None:
        next(made.draft.parameters()).detach()[3] = math.nan

    with pytest.raises(DistillSpecError, match="the loss is nan") as caught:
        tiny_run.run(tiny_run.interrupted(made, 3, poison), tmp_path)
    assert "step 3" in caught.value.where
    assert [int(row["step"]) for row in tiny_run.rows_of(tmp_path)] == [0, 1, 2]
    state = read_state(tmp_path / "last.ckpt")
    assert state["position"]["step"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in state["state_dict"].values())


def test_a_disk_that_fills_up_during_a_checkpoint_loses_nothing(
    tiny_pair: Path, tmp_path: Path
) -> None:
    plan = tiny_run.recipe(distill={"source": {"fixed": 1.0}, "max_steps": 2})
    tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    good = (tmp_path / "last.ckpt").read_bytes()
    longer = tiny_run.recipe(distill={"source": {"fixed": 1.0}, "max_steps": 4})
    with (
        pytest.raises(DistillSpecError, match="writing failed"),
        no_file_larger_than(len(good) - 1),
    ):
        tiny_run.run(tiny_run.parts(tiny_pair, longer), tmp_path, resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == good
    assert not list(tmp_path.glob(".*.tmp"))
    assert tiny_run.run(tiny_run.parts(tiny_pair, longer), tmp_path, resume=True).steps == 4
    assert [int(row["step"]) for row in tiny_run.rows_of(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_batch_that_processes_cannot_share_is_an_error(
    tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    made = tiny_run.parts(tiny_pair, tiny_run.recipe())
    with pytest.raises(DistillSpecError, match="4 sequences cannot be shared") as caught:
        tiny_run.run(made, tmp_path)
    assert "distill.batch_size=6" in caught.value.fix


def test_a_checkpoint_that_was_left_aside_is_gone_on_from(tiny_pair: Path, tmp_path: Path) -> None:
    """A process was killed between the two renames that replace a checkpoint."""
    begun = tiny_run.recipe(distill={"max_steps": 2})
    tiny_run.run(tiny_run.parts(tiny_pair, begun), tmp_path)
    last = tmp_path / LAST
    last.replace(previous_of(last))
    outcome = tiny_run.run(tiny_run.parts(tiny_pair, tiny_run.recipe()), tmp_path, resume=True)
    assert outcome.tokens_before > 0
    assert outcome.steps == 4
