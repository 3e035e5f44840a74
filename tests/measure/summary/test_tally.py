"""The numbers of the summary, by hand, from two prompts and two drafts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillspec.measure.summary.tally import Tally
from distillspec.measure.timed.rows import DraftedAt
from tests.measure.two_prompts import CONFIDENCE, FACTS, STEPS, a_row, counts, rows


def test_a_cell_by_hand(tally: Tally) -> None:
    cell = tally.cells()[1]
    assert (cell.draft, cell.gamma, cell.temperature, cell.prompts) == ("distilled", 2, 1.0, 2)
    assert cell.tau.value == pytest.approx((15 + 10) / 10)
    assert cell.draft_acceptance == pytest.approx(15 / 20)
    assert cell.acceptance_by_position == pytest.approx([9 / 10, 6 / 10])
    assert cell.alpha.value == pytest.approx(15 / 20)
    assert cell.alpha_argmax.value == pytest.approx(13 / 20)
    assert cell.alpha_argmax.low <= cell.alpha_argmax.value <= cell.alpha_argmax.high
    # 1 + 1/2 + 1/4 tokens in the one round of the first text, 9 in 3 of the second.
    assert cell.expected_tau.value == pytest.approx((1.75 + 9) / 4)
    # Two documents tell little; but a round emits a token at least, and gamma + 1 at most.
    assert cell.expected_tau[1:] == (1.0, 3.0)
    assert cell.tau.low >= 1.0
    assert cell.tau_iid == pytest.approx(1 + 0.75 + 0.75**2)
    assert cell.draft_to_target_time == pytest.approx(0.2)
    assert cell.v == pytest.approx(1.2)
    assert cell.predicted_speedup == pytest.approx(2.5 / (2 * 0.2 + 1.2))
    assert cell.predicted_from_alpha == pytest.approx(cell.tau_iid / 1.6)
    assert cell.speedup.value == pytest.approx((4.0 + 8.0) / (2.0 + 4.0))
    assert cell.speedup_with_prefill == pytest.approx((5.0 + 9.0) / (3.0 + 5.0))
    assert cell.measured_over_predicted == pytest.approx(2.0 / (2.5 / 1.6))
    assert cell.tokens_per_second == pytest.approx(24 / 6)
    assert cell.perfect_draft_cap == pytest.approx(3 / 1.6)
    assert cell.break_even_alpha is not None
    assert cell.repeated_ngram_share is None


def test_the_baseline_by_hand(tally: Tally) -> None:
    (plain,) = tally.baselines()
    assert plain.tokens_per_second.value == pytest.approx(48 / 24)
    assert plain.entropy_nats == pytest.approx(30 / 20)
    assert plain.after_end_share == 0.0
    assert (plain.target_step_seconds, plain.step_spread) == (0.010, 0.1)


def test_of_several_methods_the_baselines_step_is_the_standard_ones() -> None:
    steps = {("adaedl", 1.0): replace(STEPS, target_seconds=0.5), ("standard", 1.0): STEPS}
    tally = Tally(rows(), steps, {1.0: FACTS}, CONFIDENCE, frozenset())
    assert tally.baselines()[0].target_step_seconds == 0.010


def test_tokens_after_the_end_of_a_text_are_counted() -> None:
    ended = [
        replace(row, tokens=[1] * 8 + [7, 1, 1, 7]) if not i else row
        for i, row in enumerate(rows())
    ]
    tally = Tally(ended, {("standard", 1.0): STEPS}, {1.0: FACTS}, CONFIDENCE, frozenset({7}))
    (plain,) = tally.baselines()
    assert plain.after_end_share == pytest.approx(3 / 12 / 4)


def test_at_temperature_zero_repeats_are_counted() -> None:
    greedy = [
        a_row(i, draft, 1.0, counts(4, (3, 1)), temperature=0.0)
        for i in (0, 1)
        for draft in (None, "distilled")
    ]
    tally = Tally(greedy, {("standard", 0.0): STEPS}, {0.0: FACTS}, CONFIDENCE, frozenset())
    assert tally.cells()[0].repeated_ngram_share == pytest.approx(8 / 9)
    assert tally.baselines()[0].repeated_ngram_share == pytest.approx(8 / 9)


def test_categories_and_contexts_are_those_of_the_prompts_of_each_cell() -> None:
    wide = [
        replace(
            a_row(i, draft, 2.0 + (i < 5), counts(5, (3, 1))),
            category="code" if i < 5 else "prose",
            rounds=[DraftedAt(20 + i, 2, 1), DraftedAt(40, 2, 0)] if draft else [],
        )
        for i in range(10)
        for draft in (None, "distilled")
    ]
    for row in wide[1::2]:
        object.__setattr__(row, "seconds", 1.0)
    tally = Tally(wide, {("standard", 1.0): STEPS}, {1.0: FACTS}, CONFIDENCE, frozenset())
    code, prose = tally.categories()
    assert (code.category, code.prompts, prose.category) == ("code", 5, "prose")
    assert (code.speedup.value, prose.speedup.value) == (pytest.approx(3.0), pytest.approx(2.0))
    assert code.draft_acceptance.value == pytest.approx(4 / 10)
    assert code.tau.value == pytest.approx(9 / 5)
    first, second = tally.contexts()
    assert (first.from_tokens, first.prompts, first.draft_acceptance.value) == (16, 10, 0.5)
    assert (second.from_tokens, second.accepted, second.drafted) == (32, 0, 20)


def test_prompts_without_categories_are_not_broken_down(tally: Tally) -> None:
    assert tally.categories() == []
    assert tally.contexts() == []
