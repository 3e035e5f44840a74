"""What is said of a pair before training, on tiny real models."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.pair_check import (
    DRAFT,
    Expectation,
    PairCheck,
    assess,
    expectation_at,
    warnings_about,
)
from distillspec.measure.timed.memory import TrainingLoad
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.recipe.suite import Suite
from tests.methods.chain_times import chain_times

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tests.measured import Setting

LOAD = TrainingLoad(sequences=4, tokens_per_sequence=10, chunk_tokens=8)
GOOD = Expectation(
    temperature=1.0,
    alpha=0.6,
    alpha_low=0.55,
    alpha_high=0.65,
    entropy_nats=1.5,
    target_step_seconds=0.004,
    draft_to_target_time=0.1,
    verify_times={4: 1.1},
    break_even_alpha=0.2,
    highest_alpha=1.0,
    perfect_draft_cap=3.3,
    perfect_draft_gamma=4,
    best_gamma=4,
    predicted_speedup=1.5,
    against_break_even="higher",
)


@pytest.fixture(scope="module")
def fitness(setting: Setting, tiny_suite: Suite) -> PairCheck:
    return assess(
        setting.target,
        setting.drafts["distilled"],
        setting.tokenizer,
        setting.prompts,
        suite=tiny_suite,
        load=LOAD,
        device="cpu",
    )


def test_each_temperature_has_its_expectation_by_the_cost_model(fitness: PairCheck) -> None:
    assert [one.temperature for one in fitness.expectations] == [0.0, 1.0]
    for one in fitness.expectations:
        assert one.predicted_speedup <= one.perfect_draft_cap
        assert one.alpha_low <= one.alpha <= one.alpha_high
        assert one.verify_times.keys() == {1, 3}
        assert one.entropy_nats > 0.0
    assert fitness.predicted_speedup() == min(o.predicted_speedup for o in fitness.expectations)
    assert fitness.perfect_draft_cap() == min(o.perfect_draft_cap for o in fitness.expectations)


def test_the_pair_is_described(fitness: PairCheck) -> None:
    assert (fitness.target_vocabulary, fitness.draft_vocabulary, fitness.vocab_size) == (300,) * 3
    assert fitness.chat_template is None
    assert fitness.prompts == 4
    assert fitness.memory.training() > fitness.memory.draft_training


def expected(setting: Setting, suite: Suite, draft: PreTrainedModel, step: float) -> Expectation:
    """At T = 1, where a target step takes 2 s and a draft step `step` seconds."""
    steps = replace(
        chain_times(1.0, 2.0, {1: 2.2, 3: 2.6}, {DRAFT: step}), unread_seconds={DRAFT: 0.1}
    )
    ends = frozenset[int]()
    return expectation_at(setting.target, draft, ends, setting.prompts, suite, steps, 300)


@pytest.mark.parametrize(("step", "gamma"), [(0.02, 3), (1.9, 1)])
def test_the_best_gamma_and_the_cap_are_those_of_the_step_times(
    setting: Setting, tiny_suite: Suite, step: float, gamma: int
) -> None:
    found = expected(setting, tiny_suite, setting.drafts["distilled"], step)
    assert found.best_gamma == found.perfect_draft_gamma == gamma
    alpha = found.alpha
    # A round in target steps; `unread` counts where all drafted tokens are kept.
    seconds = gamma * step + {1: 2.2, 3: 2.6}[gamma] + 0.1 * alpha**gamma
    tau = sum(alpha**n for n in range(gamma + 1))
    assert found.predicted_speedup == pytest.approx(tau / (seconds / 2.0))
    assert found.draft_to_target_time == pytest.approx(step / 2.0)
    whole = gamma * step + {1: 2.2, 3: 2.6}[gamma] + 0.1
    assert found.highest_alpha == pytest.approx(1.0)
    assert found.perfect_draft_cap == pytest.approx((gamma + 1) / (whole / 2.0))


def test_the_cap_of_a_trimmed_draft_is_at_the_targets_mass_on_its_tokens(
    setting: Setting, tiny_suite: Suite
) -> None:
    draft = copy.deepcopy(setting.drafts["distilled"])
    trim_head(draft, range(60))
    found = expected(setting, tiny_suite, draft, 0.02)
    highest = found.highest_alpha
    assert found.alpha <= highest + 1e-6 and 0.0 < highest < 1.0
    caps = {
        gamma: sum(highest**n for n in range(gamma + 1))
        / ((gamma * 0.02 + verifying + 0.1 * highest**gamma) / 2.0)
        for gamma, verifying in {1: 2.2, 3: 2.6}.items()
    }
    assert found.perfect_draft_cap == pytest.approx(max(caps.values()))


def test_no_prompts_are_the_users_error(setting: Setting, tiny_suite: Suite) -> None:
    with pytest.raises(DistillSpecError, match="no prompts"):
        assess(
            setting.target,
            setting.drafts["distilled"],
            setting.tokenizer,
            [],
            suite=tiny_suite,
            load=LOAD,
            device="cpu",
        )


def test_a_good_pair_gets_no_warning() -> None:
    assert warnings_about([GOOD], 300, 300) == []


def test_a_pair_that_cannot_win_is_warned_of() -> None:
    slow = replace(GOOD, break_even_alpha=None, perfect_draft_cap=0.8, draft_to_target_time=1.4)
    (words,) = warnings_about([slow], 300, 300)
    assert "even a perfect draft cannot win" in words
    assert "0.80x" in words


def test_a_head_whose_tokens_cannot_win_is_warned_of() -> None:
    narrow = replace(GOOD, break_even_alpha=0.7, highest_alpha=0.65, perfect_draft_cap=0.95)
    (words,) = warnings_about([narrow], 300, 300)
    assert "0.650" in words and "0.700" in words and "pair.draft_head.keep" in words


def test_a_pair_with_next_to_nothing_to_gain_is_warned_of() -> None:
    (words,) = warnings_about([replace(GOOD, perfect_draft_cap=1.05)], 300, 300)
    assert "almost nothing to gain" in words


def test_a_draft_below_its_break_even_is_warned_of() -> None:
    below = replace(GOOD, break_even_alpha=0.7, against_break_even="lower")
    (words,) = warnings_about([below], 300, 300)
    unsure = replace(below, against_break_even="too few documents")
    assert warnings_about([unsure], 300, 300) == []
    assert "0.600" in words and "break-even 0.700" in words


def test_padded_vocabularies_are_warned_of() -> None:
    (words,) = warnings_about([GOOD], 151936, 152064)
    assert "151936" in words
    assert "152064" in words
