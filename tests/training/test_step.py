from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.training.step import StepResult
from tests.training import tiny_run


def _trace(pair: Path, folder: Path, **distill: object) -> list[dict[str, float]]:
    plan = tiny_run.recipe(distill={"source": {"fixed": 0.5, "target": 0.5}, **distill})
    tiny_run.run(tiny_run.parts(pair, plan), folder, probed=False)
    return [
        {name: float(value) for name, value in row.items() if value}
        for row in tiny_run.rows_of(folder)
    ]


def test_metrics_divide_sums_once() -> None:
    seconds = {"rollout": 1.0, "target": 0.5, "update": 0.5}
    metrics = StepResult(6.0, 4.0, 9.0, 12.0, 1e-3, 0.7, seconds).metrics()
    assert metrics["train/divergence_nats"] == 1.5
    assert metrics["train/alpha"] == 0.75
    assert metrics["train/tokens_per_second"] == 6.0
    assert metrics["train/rollout_seconds"] == 1.0


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"reduction": "sequences"},
        {"divergence": "block_efficiency"},
        {"divergence": "tvd_plus", "source": {"draft": 1.0}},
        {"select": {"keep": 0.4, "reference": "draft"}},
        {"source": {"draft": 0.5, "target": 0.5, "per": "token"}},
        {"source": {"fixed": 0.5, "speculative": 0.5}, "speculative": {"rejected": True}},
        {"source": {"speculative": 0.5, "replay": 0.5}},
        {"source": {"draft": 0.25, "fixed": 0.25, "replay": 0.5}, "replay": {"sequences": 3}},
    ],
    ids=str,
)
def test_micro_batches_of_any_size_give_the_same_steps(
    tiny_pair: Path, tmp_path: Path, plan: dict[str, Any]
) -> None:
    """Responses have 1 to 9 tokens: a mean of the micro-batches' means would differ."""
    whole = _trace(tiny_pair, tmp_path / "whole", **plan)
    for size in (1, 3):
        split = _trace(tiny_pair, tmp_path / str(size), **plan, micro_batch_size=size)
        for mine, theirs in zip(whole, split, strict=True):
            for name in ("train/divergence_nats", "train/alpha", "train/gradient_norm"):
                assert theirs[name] == pytest.approx(mine[name], rel=1e-4)


def test_the_rate_follows_the_schedule(tiny_pair: Path, tmp_path: Path) -> None:
    rates = [row["train/learning_rate"] for row in _trace(tiny_pair, tmp_path)]
    assert rates[0] == pytest.approx(0.005)  # half of the peak: the first of two warm-up steps
    assert rates[1] > rates[2] > rates[3] > 0.001


def test_steps_without_any_response_are_an_error(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={"source": {"target": 1.0}})
    made = tiny_run.parts(tiny_pair, plan)
    empty = {prompt.key: () for prompt in tiny_run.prompts()}
    data = type(made.data)(
        tiny_run.prompts(), plan.distill.source, batch_size=4, seed=0, target_responses=empty
    )
    with pytest.raises(DistillSpecError, match="no row of this step has a response"):
        tiny_run.run(made._replace(data=data), tmp_path)
