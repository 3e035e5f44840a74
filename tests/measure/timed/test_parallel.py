from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.measure.evaluation import ROWS, evaluate
from distillspec.measure.timed.parallel import ParallelBench, threads_of, torch_threads
from distillspec.recipe.methods import PearlConfig
from distillspec.recipe.suite import Suite
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from tests.measured import Setting

CARD = {"name": "card", "parallel": {"kind": "card", "nodes": 3, "layers": 4}, "gammas": [3]}
PEARL = {"name": "pearl", "parallel": {"kind": "pearl"}, "gammas": [2, 4]}


def suite_of(tiny_suite: Suite, *methods: dict[str, Any]) -> Suite:
    return Suite.model_validate(
        {
            **tiny_suite.model_dump(exclude={"methods"}),
            "gammas": [2],
            "methods": methods,
            "drafts": ["distilled"],
        }
    )


def test_two_processes_are_measured_together_with_one(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    suite = suite_of(tiny_suite, {"name": "standard"}, CARD, PEARL)
    summary = evaluate(suite, folder=tmp_path, **setting.arguments())
    rows = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    greedy = [row for row in rows if row["temperature"] == 0.0]
    assert len({(row["prompt"], tuple(row["tokens"])) for row in greedy}) == 4
    for row in rows:
        assert (row["draft_busy_seconds"] is None) == (row["method"] not in ("card", "pearl"))
    by_name = {(one.method, one.gamma): one for one in summary.ranking}
    assert set(by_name) == {("standard", 2), ("card", 3), ("pearl", 2), ("pearl", 4)}
    assert 0.0 < by_name["card", 3].draft_busy <= 1.1
    assert 0.0 < by_name["card", 3].target_busy <= 1.0
    assert math.isnan(by_name["standard", 2].draft_busy)
    assert by_name["standard", 2].wasted_per_token >= 0.0
    assert math.isnan(by_name["pearl", 4].wasted_per_token)  # what nobody judged is not counted
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    for pid in children:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"spawn_main" not in command, "a draft's process is left"


def test_a_chooser_per_text_has_both_kinds_among_its_arms(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    adaedl = {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": [3]}
    arms = ["standard@1", "adaedl", "card@2"]
    bandit = {"name": "bandit", "choose": {"kind": "ucb", "arms": arms, "per": "text"}}
    suite = suite_of(tiny_suite, {"name": "standard"}, adaedl, CARD, bandit)
    evaluate(suite, folder=tmp_path, **setting.arguments())
    rows = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    greedy = [row for row in rows if row["temperature"] == 0.0]
    assert len({(row["prompt"], tuple(row["tokens"])) for row in greedy}) == 4
    chosen = [row for row in rows if row["method"] == "bandit"]
    assert {row["draft_busy_seconds"] is None for row in chosen} == {True, False}
    learnt = json.loads((tmp_path / "chooser_state.json").read_text())["distilled/bandit@3 T=0"][
        "arms"
    ]
    assert [arm["name"] for arm in learnt] == ["standard", "adaedl", "card"]
    assert sum(arm["values"][0] for arm in learnt) == 4  # texts, of which each arm had one at least
    assert all(arm["values"][1] >= 12 for arm in learnt)
    assert learnt[1]["stop"] != [0.4, 0.9]


def test_a_suite_of_parallel_methods_alone_is_measured_too(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    summary = evaluate(suite_of(tiny_suite, PEARL), folder=tmp_path, **setting.arguments())
    assert {cell.method for cell in summary.cells} == {"pearl"}


def test_a_draft_that_cannot_start_leaves_no_other_process(
    setting: Setting, tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = suite_of(tiny_suite, CARD, PEARL)
    drafts = {"distilled": setting.drafts["distilled"]}
    started: list[Any] = []
    from distillspec.measure.timed import parallel

    begin = parallel._start

    def first_only(*arguments: Any) -> Any:
        if started:
            raise RuntimeError("no more")
        started.append(begin(*arguments))
        return started[0]

    monkeypatch.setattr(parallel, "_start", first_only)
    with pytest.raises(RuntimeError, match="no more"):
        ParallelBench(suite, setting.target, drafts, 64, None)
    assert not started[0]._process._process.is_alive()


def test_each_side_has_its_threads_and_the_caller_its_own_again(
    setting: Setting, tiny_suite: Suite
) -> None:
    plan = {**CARD, "parallel": {"kind": "card", "nodes": 2, "layers": 2, "threads": 1}}
    suite = suite_of(tiny_suite, plan).model_copy(update={"drafts": ("distilled", "control")})
    before = torch.get_num_threads()
    bench = ParallelBench(
        suite, setting.target, {"distilled": setting.drafts["distilled"]}, 64, None
    )
    try:
        found = bench.decode(
            suite.methods[0],
            3,
            "distilled",
            torch.tensor(setting.prompts[0].tokens),
            SamplingPolicy(1.0),
            GeneratorSource(torch.Generator().manual_seed(0)),
            seed=0,
            length=12,
        )
        assert len(found.tokens) == 12
        assert bench.bytes() == {"distilled/card": 8 * (4 + 2 * 4) + 8 * 4}
    finally:
        bench.close()
    assert torch.get_num_threads() == before
    with torch_threads(1):
        assert torch.get_num_threads() == 1
        assert threads_of(PearlConfig(kind="pearl")) == 1
    assert torch.get_num_threads() == before


def test_two_methods_of_one_plan_share_a_process_that_is_large_enough(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    four = {**PEARL, "name": "pearl-4", "gammas": [4]}
    two = {**PEARL, "name": "pearl-2", "gammas": [2]}
    suite = suite_of(tiny_suite, four, two).model_copy(update={"temperatures": (1.0,)})
    summary = evaluate(suite, folder=tmp_path, **setting.arguments())
    assert {(cell.method, cell.gamma) for cell in summary.cells} == {("pearl-4", 4), ("pearl-2", 2)}


def test_threads_that_no_machine_has_are_refused() -> None:
    with pytest.raises(DistillSpecError, match="4,096 threads are too many"):
        threads_of(PearlConfig(kind="pearl", threads=4096))
