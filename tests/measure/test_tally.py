"""The numbers of the summary, by hand, from two prompts and two drafts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillspec.measure.bootstrap import Resampling
from distillspec.measure.rows import DraftedAt, Row
from distillspec.measure.tally import Tally
from distillspec.measure.target_texts import TextFacts
from distillspec.measure.timing import StepTimes
from distillspec.speculation.records import Counts

STEPS = StepTimes(1.0, 0.010, {2: 0.012}, {"undistilled": 0.001, "distilled": 0.002}, 30, 0.1)
FACTS = TextFacts(
    overlap={"undistilled": [4.0, 8.0], "distilled": [6.0, 9.0]},
    entropy=[10.0, 20.0],
    tokens=[8, 12],
    chances={
        "undistilled": [[0.0] * 3, [1.0, 0.0, 1.0, 1.0, 0.0]],
        "distilled": [[0.5] * 3, [1.0] * 9],
    },
)
HOW = Resampling(resamples=200)


def a_row(prompt: int, draft: str | None, seconds: float, counts: Counts, **more: float) -> Row:
    return Row(
        prompt=prompt,
        prompt_key=str(prompt),
        temperature=more.get("temperature", 1.0),
        draft=draft,
        method=draft and "standard",
        gamma=int(more.get("gamma", 2)) if draft else None,
        repeat=0,
        place=0,
        run="r",
        seconds=seconds,
        prefill_seconds=1.0,
        tokens=[1] * 12,
        fates="p" * 12,
        counts=counts,
    )


def counts(verifications: int, accepted_at: tuple[int, int]) -> Counts:
    accepted = sum(accepted_at)
    return Counts(
        tokens=12,
        verifications=verifications,
        emitted=accepted + verifications,
        drafts=verifications,
        drafted=2 * verifications,
        accepted=accepted,
        draft_steps=2 * verifications,
        accepted_at=accepted_at,
    )


def rows() -> list[Row]:
    plain = [a_row(i, None, s, Counts()) for i, s in ((0, 3.0), (0, 5.0), (1, 8.0), (1, 8.0))]
    return [
        *plain,
        a_row(0, "undistilled", 4.0, counts(6, (2, 1))),
        a_row(1, "undistilled", 6.0, counts(4, (3, 2))),
        a_row(0, "distilled", 2.0, counts(5, (4, 2))),
        a_row(1, "distilled", 4.0, counts(5, (5, 4))),
    ]


@pytest.fixture
def tally() -> Tally:
    return Tally(rows(), {("standard", 1.0): STEPS}, {1.0: FACTS}, HOW, frozenset())


def test_a_cell_by_hand(tally: Tally) -> None:
    cell = tally.cells()[1]
    assert (cell.draft, cell.gamma, cell.temperature, cell.prompts) == ("distilled", 2, 1.0, 2)
    assert cell.tau == pytest.approx((15 + 10) / 10)
    assert cell.draft_acceptance == pytest.approx(15 / 20)
    assert cell.acceptance_by_position == pytest.approx([9 / 10, 6 / 10])
    assert cell.alpha == pytest.approx(15 / 20)
    # 1 + 1/2 + 1/4 tokens in the one round of the first text, 9 in 3 of the second.
    assert cell.expected_tau == pytest.approx((1.75 + 9) / 4)
    assert cell.tau_iid == pytest.approx(1 + 0.75 + 0.75**2)
    assert cell.draft_to_target_time == pytest.approx(0.2)
    assert cell.v == pytest.approx(1.2)
    assert cell.predicted_speedup == pytest.approx(2.5 / (2 * 0.2 + 1.2))
    assert cell.predicted_from_alpha == pytest.approx(cell.tau_iid / 1.6)
    assert cell.speedup == pytest.approx((4.0 + 8.0) / (2.0 + 4.0))
    assert cell.speedup_with_prefill == pytest.approx((5.0 + 9.0) / (3.0 + 5.0))
    assert cell.measured_over_predicted == pytest.approx(2.0 / (2.5 / 1.6))
    assert cell.tokens_per_second == pytest.approx(24 / 6)
    assert cell.perfect_draft_cap == pytest.approx(3 / 1.6)
    assert cell.break_even_alpha is not None
    assert cell.repeated_ngram_share is None


def test_the_baseline_by_hand(tally: Tally) -> None:
    (plain,) = tally.baselines()
    assert plain.tokens_per_second == pytest.approx(48 / 24)
    assert plain.entropy_nats == pytest.approx(30 / 20)
    assert plain.after_end_share == 0.0
    assert (plain.target_step_seconds, plain.step_spread) == (0.010, 0.1)


def test_tokens_after_the_end_of_a_text_are_counted() -> None:
    ended = [
        replace(row, tokens=[1] * 8 + [7, 1, 1, 7]) if not i else row
        for i, row in enumerate(rows())
    ]
    tally = Tally(ended, {("standard", 1.0): STEPS}, {1.0: FACTS}, HOW, frozenset({7}))
    (plain,) = tally.baselines()
    assert plain.after_end_share == pytest.approx(3 / 12 / 4)


def test_comparisons_are_paired_and_say_what_is_shown(tally: Tally) -> None:
    found = {one.quantity: one for one in tally.comparisons("distilled", ["undistilled"])}
    assert found["tau"].value == pytest.approx(2.5)
    assert found["tau"].against_value == pytest.approx(18 / 10)
    assert found["tau"].difference == pytest.approx(0.7)
    assert found["tau"].relative == pytest.approx(2.5 / 1.8 - 1)
    assert found["tau"].verdict == "higher"
    assert found["alpha"].difference == pytest.approx(0.15)
    assert (found["alpha"].gamma, found["alpha"].method) == (None, None)
    # 1 token in 1 round, and 2 (kept, corrected) + 3 (kept, kept, bonus: cut off, so not counted)
    assert found["expected tau"].against_value == pytest.approx((1 + 2 + 3) / 3)
    assert (found["expected tau"].gamma, found["expected tau"].method) == (2, None)
    assert found["speed"].relative == pytest.approx(10 / 6 - 1)


def test_the_reverse_comparison_has_the_opposite_verdict(tally: Tally) -> None:
    (tau,) = [
        one for one in tally.comparisons("undistilled", ["distilled"]) if one.quantity == "tau"
    ]
    assert tau.difference == pytest.approx(-0.7)
    assert tau.verdict == "lower"


def test_a_difference_that_prompts_disagree_about_is_not_shown() -> None:
    mixed = [*rows()[:-1], a_row(1, "distilled", 9.0, counts(8, (3, 1)))]
    tally = Tally(mixed, {("standard", 1.0): STEPS}, {1.0: FACTS}, HOW, frozenset())
    verdicts = {
        one.quantity: one.verdict for one in tally.comparisons("distilled", ["undistilled"])
    }
    assert verdicts["tau"] == verdicts["speed"] == "no difference shown"


def test_the_recommendation_is_the_fastest_gamma_in_words() -> None:
    slow = [a_row(i, "distilled", 30.0, counts(5, (4, 2)), gamma=4) for i in (0, 1)]
    steps = StepTimes(1.0, 0.01, {2: 0.012, 4: 0.014}, STEPS.draft_seconds, 30, 0.1)
    tally = Tally([*rows(), *slow], {("standard", 1.0): steps}, {1.0: FACTS}, HOW, frozenset())
    found = {(one.draft, one.temperature): one for one in tally.recommendations()}
    best = found["distilled", 1.0]
    assert (best.gamma, best.speedup) == (2, pytest.approx(2.0))
    assert best.words.startswith("gamma 2: 2.00x")
    assert found["distilled", None].speedup == best.speedup
    assert (found["undistilled", 1.0].gamma, found["undistilled", None].gamma) == (2, 2)


def test_a_draft_that_only_costs_is_not_recommended() -> None:
    slow = [a_row(i, "distilled", 30.0, counts(5, (1, 0))) for i in (0, 1)]
    tally = Tally(rows()[:4] + slow, {("standard", 1.0): STEPS}, {1.0: FACTS}, HOW, frozenset())
    assert all(r.words.startswith("do not speculate") for r in tally.recommendations())


def test_a_gain_the_interval_does_not_show_is_called_that() -> None:
    unsure = [
        a_row(0, "distilled", 2.0, counts(5, (4, 2))),
        a_row(1, "distilled", 9.0, counts(5, (4, 2))),
    ]
    tally = Tally(rows()[:4] + unsure, {("standard", 1.0): STEPS}, {1.0: FACTS}, HOW, frozenset())
    assert all(r.words.startswith("no gain shown") for r in tally.recommendations())


def test_at_temperature_zero_repeats_are_counted() -> None:
    greedy = [
        a_row(i, draft, 1.0, counts(4, (3, 1)), temperature=0.0)
        for i in (0, 1)
        for draft in (None, "distilled")
    ]
    tally = Tally(greedy, {("standard", 0.0): STEPS}, {0.0: FACTS}, HOW, frozenset())
    assert tally.cells()[0].repeated_ngram_share == pytest.approx(8 / 9)
    assert tally.baselines()[0].repeated_ngram_share == pytest.approx(8 / 9)


def test_the_oracle_is_read_from_chains_where_methods_are_ranked(tally: Tally) -> None:
    assert tally.oracles() == []  # one method: nothing is ranked
    block = [replace(row, method="block", seconds=3.0) for row in rows()[4:]]
    steps = {("standard", 1.0): STEPS, ("block", 1.0): STEPS}
    ranked = Tally([*rows(), *block], steps, {1.0: FACTS}, HOW, frozenset())
    by_draft = {one.draft: one for one in ranked.oracles()}
    assert by_draft.keys() == {"undistilled", "distilled"}
    one = by_draft["distilled"]
    assert (one.method, one.gamma, one.temperature) == ("standard", 2, 1.0)
    # Of 5 rounds each: kept 0, 1, 2 tokens in 1, 2, 2 rounds, and in 0, 1, 4; v(1) = 1.1.
    first = (1 * 1.0 + 2 * (0.2 + 1.1) + 2 * 1.6) / (5 * 1.6)
    second = (1 * (0.2 + 1.1) + 4 * 1.6) / (5 * 1.6)
    assert one.tokens_per_second == pytest.approx(24 / (2.0 * first + 4.0 * second))
    assert one.drafted_per_token == pytest.approx(15 / 25)
    assert one.forwards_per_token == pytest.approx(10 / 25)
    fastest = max(place.tokens_per_second for place in ranked.ranking())
    assert one.relative == pytest.approx(one.tokens_per_second / fastest - 1.0)


def test_the_oracle_is_read_from_the_longest_chains() -> None:
    both = [replace(row, gamma=4) for row in rows()[4:]]
    block = [replace(row, method="block") for row in rows()[4:]]
    steps = StepTimes(1.0, 0.01, {2: 0.012, 4: 0.014}, STEPS.draft_seconds, 30, 0.1)
    by_method = {("standard", 1.0): steps, ("block", 1.0): steps}
    tally = Tally([*rows(), *both, *block], by_method, {1.0: FACTS}, HOW, frozenset())
    assert {one.gamma for one in tally.oracles()} == {4}


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
    tally = Tally(wide, {("standard", 1.0): STEPS}, {1.0: FACTS}, HOW, frozenset())
    code, prose = tally.categories()
    assert (code.category, code.prompts, prose.category) == ("code", 5, "prose")
    assert (code.speedup, prose.speedup) == (pytest.approx(3.0), pytest.approx(2.0))
    assert code.draft_acceptance == pytest.approx(4 / 10)
    assert code.tau == pytest.approx(9 / 5)
    first, second = tally.contexts()
    assert (first.from_tokens, first.prompts, first.draft_acceptance) == (16, 10, 0.5)
    assert (second.from_tokens, second.accepted, second.drafted) == (32, 0, 20)


def test_prompts_without_categories_are_not_broken_down(tally: Tally) -> None:
    assert tally.categories() == []
    assert tally.contexts() == []


def test_a_method_is_called_slower_only_if_its_whole_interval_is() -> None:
    """Twice as slow on both prompts; and faster on one, slower on the other."""
    standard = [a_row(i, "distilled", 2.0, counts(5, (3, 1))) for i in (0, 1)]
    slow = [replace(row, method="slow", seconds=4.0) for row in standard]
    mixed = [
        replace(row, method="mixed", seconds=s) for row, s in zip(standard, (1.5, 2.9), strict=True)
    ]
    plain = [row for row in rows() if row.draft is None]
    steps = {(name, 1.0): STEPS for name in ("standard", "slow", "mixed")}
    tally = Tally([*plain, *standard, *slow, *mixed], steps, {1.0: FACTS}, HOW, frozenset())
    found = {one.method: one.verdict for one in tally.ranking()}
    assert found == {
        "standard": "fastest",
        "mixed": "within noise of it",
        "slow": "slower",
    }
