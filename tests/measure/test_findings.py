"""Sentences: a gain, a loss and a null result are each said as what they are."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure.findings import findings
from distillspec.measure.summary import Baseline, Cell, Comparison, GreedyDivergence
from tests.measure.conftest import a_baseline, a_cell, a_comparison, a_recommendation


def said(
    *,
    cells: Sequence[Cell] = (),
    baseline: Sequence[Baseline] = (),
    comparisons: Sequence[Comparison] = (),
    divergences: Sequence[GreedyDivergence] = (),
    processes: int = 1,
) -> str:
    recommended = [a_recommendation(1.0), a_recommendation(None)]
    return "\n".join(findings(cells, baseline, comparisons, recommended, divergences, processes))


def test_the_best_measured_gamma_comes_first() -> None:
    assert said().startswith("T = 1, distilled draft: gamma 4: 1.60x")


def test_a_null_result_is_said_plainly_with_what_can_be_excluded() -> None:
    null = {
        "difference": 0.0,
        "relative": 0.0,
        "relative_low": -0.02,
        "relative_high": 0.03,
        "verdict": "no difference shown",
    }
    words = said(comparisons=[a_comparison(gamma=g, **null) for g in (2, 4)])
    assert "no difference in tau is shown at any gamma" in words
    assert "beyond 3.0% are unlikely" in words


def test_gains_losses_and_nulls_are_told_apart_by_gamma() -> None:
    words = said(
        comparisons=[
            a_comparison(gamma=2),
            a_comparison(gamma=4, relative=0.2),
            a_comparison(gamma=6, relative=-0.1, verdict="lower"),
            a_comparison(gamma=8, verdict="no difference shown"),
        ]
    )
    assert "tau is higher at gamma 2, 4 (+10.0% to +20.0%, interval excludes 0)" in words
    assert "tau is lower at gamma 6 (-10.0%" in words
    assert "no difference shown at gamma 8" in words


def test_each_pair_of_drafts_and_temperature_has_its_own_sentence() -> None:
    some = [
        a_comparison(against=against, temperature=t)
        for against in ("control", "undistilled")
        for t in (1.0, 0.0)
    ]
    sentences = [line for line in said(comparisons=some).splitlines() if "against" in line]
    assert [line.split(":")[0] for line in sentences] == [
        "Distilled against undistilled at T = 0",
        "Distilled against undistilled at T = 1",
        "Distilled against control at T = 0",
        "Distilled against control at T = 1",
    ]


def test_a_null_result_in_alpha_is_said_plainly() -> None:
    words = said(
        comparisons=[
            a_comparison(quantity="alpha", gamma=None, value=0.8125, against_value=0.8129,
                         difference=-0.0004, low=-0.011, high=0.011,
                         verdict="no difference shown")
        ]
    )  # fmt: skip
    assert "no difference in alpha is shown (0.813 -> 0.812" in words


def test_a_pair_that_cannot_win_is_called_that() -> None:
    assert "Even a perfect distilled draft" in said(
        cells=[a_cell("distilled", 2, 1.0, perfect_draft_cap=0.8)]
    )
    assert "Even a perfect" not in said(cells=[a_cell("distilled", 2, 1.0)])


def test_cautions_are_given_only_where_there_is_reason() -> None:
    quiet = said(cells=[a_cell("distilled", 2, 1.0)], baseline=[a_baseline(0.0)])
    assert len(quiet.splitlines()) == 1
    words = said(
        cells=[a_cell("distilled", 2, 1.0, prompts=5, measured_over_predicted=0.7)],
        baseline=[a_baseline(0.0, repeated_ngram_share=0.6, step_spread=0.5)],
        divergences=[GreedyDivergence("distilled", 2, "a", 3, 0.0625)],
        processes=2,
    )
    for part in ("less than 85%", "not quiet", "Only 5 prompts", "loops", "0.0625", "2 processes"):
        assert part in words
