"""A folder with a tiny pair, prompts and a suite, and the recipe of a run in it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from distillspec.recipe.schema import Recipe
from tests.served import NANO, Served

SUITE = """\
name: tiny
prompts: {count: 4}
gammas: [1, 2]
temperatures: [0.0, 1.0]
max_new_tokens: 8
runner: {kind: eager, dtype: float32}
"""


CELL_KEYS = {
    "draft",
    "method",
    "gamma",
    "temperature",
    "prompts",
    "alpha",
    "tau",
    "draft_to_target_time",
    "predicted_speedup",
    "speedup",
    "speedup_low",
    "speedup_high",
    "tokens_per_second",
}


def recipe(**distill: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "pair": {"target": "pair/target", "draft": "pair/draft"},
            "data": {
                "source": {"kind": "jsonl", "path": "rows.jsonl"},
                "held_out_percent": 25.0,
                "max_prompt_tokens": 64,
                "max_response_tokens": 8,
            },
            "distill": {
                "divergence": "forward_kl",
                "source": {"draft": 1.0},
                "batch_size": 4,
                "max_steps": 4,
                "probe": {"every_steps": 2, "prompts": 2, "gamma": 3, "max_new_tokens": 8},
                **distill,
            },
            "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
            "hardware": {"device": "cpu", "precision": "float32"},
            "evaluate": {"suite": "tiny.yaml"},
        }
    )


def written(folder: str) -> dict[Path, int]:
    """When each file of stored responses was written: sampling again would write it again."""
    files = (p for p in Path(folder).rglob("*") if p.is_file() and p.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def only_run() -> Path:
    (run,) = Path("checkpoints/runs/tiny").iterdir()
    return run


def trace(folder: Path, probed: str) -> list[list[str]]:
    """What a training's log says of each step, but for its seconds."""
    columns = ("step", "train/divergence_nats", "train/gradient_norm", probed)
    with (folder / "metrics.csv").open(newline="") as handle:
        return [[row[name] for name in columns] for row in csv.DictReader(handle)]


def assert_one_greedy_text_a_prompt(run: Path) -> None:
    """The target's own, with every draft at every gamma and with none."""
    lines = (run / "evaluation/tiny/rows.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["temperature"] == 0.0]
    assert {row["draft"] for row in rows} == {None, "undistilled", "distilled", "control"}
    assert len({(row["prompt"], tuple(row["tokens"])) for row in rows}) == 4


SHAPE = {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2, "max_positions": 128}


def behind(served: Served) -> Recipe:
    """SeqKD: the nano target served, the nano draft trained on what it says."""
    plan = recipe(divergence="nll", source={"target": 1.0}, max_steps=3)
    endpoint = {"url": served.url, "model": served.model}
    pair = plan.pair.model_validate({"draft": str(NANO / "draft"), "endpoint": endpoint})
    return plan.model_copy(update={"pair": pair})
