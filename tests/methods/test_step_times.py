"""Step times as numbers in target steps, and the prompt that they are timed after."""

from __future__ import annotations

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.methods.step_times import StepTimes, middle_prompt
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import DoubleReader

TIMES = StepTimes(
    temperature=1.0,
    target_seconds=2.0,
    verify_seconds={1: 3.0, 4: 5.0},
    drafted={1: 1, 4: 4},
    steps={1: 1, 4: 4},
    draft_seconds={"draft": {1: 1.0, 4: 2.0}, "lookup": {1: 0.0, 4: 0.0}},
    unread_seconds={"draft": 0.5, "lookup": 0.0},
    samples=30,
    spread=0.1,
)


def test_ratios_are_of_a_target_step() -> None:
    assert TIMES.verify_times() == {1: 1.5, 4: 2.5}
    assert TIMES.draft_to_target_time("draft", 1) == pytest.approx(0.5)
    assert TIMES.draft_to_target_time("draft", 4) == pytest.approx(2.0 / 4 / 2.0)
    rounds = TIMES.round_times("draft")
    assert rounds.at(4) == pytest.approx(3.5)
    assert rounds.at(4, whole=0.5) == pytest.approx(3.5 + 0.5 * 0.25)
    assert rounds.between(2.5, 2.5) == pytest.approx(0.75 + 2.0)


def test_a_draft_without_a_model_has_no_step() -> None:
    lookup = StepTimes(1.0, 2.0, {4: 5.0}, {4: 4}, {4: 0}, {"x": {4: 0.0}}, {"x": 0.0}, 30, 0.1)
    assert lookup.draft_to_target_time("x", 4) == 0.0
    assert lookup.round_times("x").at(4) == pytest.approx(2.5)


def test_steps_are_timed_after_the_middle_one_of_the_prompts_that_each_draft_can_read() -> None:
    prompts = [(1,) * size for size in (9, 2, 5, 7, 3)]
    plain, narrow = (kind(torch.zeros(4, 4), capacity=12) for kind in (BigramRunner, DoubleReader))
    narrow.feed(torch.tensor([[1, 1]]))  # of another text
    assert len(middle_prompt(prompts, [plain], 4)) == 5
    assert len(middle_prompt(prompts, [plain, narrow], 2)) == 3
    assert len(middle_prompt(prompts, [plain, narrow], 7)) == 2
    with pytest.raises(DistillSpecError, match="room for a block of 9"):
        middle_prompt(prompts, [plain, narrow], 9)
