"""Sentences: a gain, a loss and a null result are each said as what they are."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure.stats.intervals import NOTHING, Interval
from distillspec.measure.summary.cells import Baseline, Cell
from distillspec.measure.summary.findings import findings, served_cautions
from distillspec.measure.summary.records import DraftComparison, GreedyDivergence
from tests.measured import a_baseline, a_cell, a_comparison, a_recommendation


def said(
    *,
    cells: Sequence[Cell] = (),
    baseline: Sequence[Baseline] = (),
    comparisons: Sequence[DraftComparison] = (),
    divergences: Sequence[GreedyDivergence] = (),
    documents: int = 24,
) -> str:
    recommended = [a_recommendation(1.0), a_recommendation(None)]
    return "\n".join(findings(cells, baseline, comparisons, recommended, divergences, documents))


def test_the_best_measured_gamma_comes_first() -> None:
    assert said().startswith("T = 1, distilled draft: gamma 4: 1.60x")


NULL = {
    "difference": Interval(0.0, 0.1, 0.3),
    "relative": Interval(0.0, -0.02, 0.03),
    "verdict": "no difference shown",
}


def test_a_null_result_is_a_sentence_with_its_interval() -> None:
    words = said(comparisons=[a_comparison(gamma=4, **NULL)])
    assert "gamma 4: no difference in tau is shown (2.00 -> 2.20, +0.0% [-2.0%, +3.0%])" in words
    assert "Holm" not in words


def test_what_no_text_shows_is_left_out_and_never_nan() -> None:
    nothing = {"relative": NOTHING._replace(value=-1.0)}
    words = said(comparisons=[a_comparison(gamma=4, **(NULL | nothing))])
    assert "is shown (2.00 -> 2.20, -100.0%)" in words
    unknown = {"relative": NOTHING}
    words = said(comparisons=[a_comparison(gamma=4, **(NULL | unknown))])
    assert "is shown (2.00 -> 2.20)" in words


def test_gains_losses_and_null_results_differ_and_are_tested_together() -> None:
    words = said(
        comparisons=[
            a_comparison(),
            a_comparison(temperature=0.0, relative=-0.1, verdict="lower"),
            a_comparison(against="control", **NULL),
            a_comparison(against="control", temperature=0.0, verdict="too few documents"),
        ]
    )
    assert "T = 1, gamma 2: tau is higher (2.00 -> 2.20, +10.0% [+5.0%, +15.0%])" in words
    assert "T = 0, gamma 2: tau is lower (2.00 -> 2.20, -10.0%" in words
    assert "against control at T = 1, gamma 2: no difference in tau is shown" in words
    assert "10 documents are too few" in words
    assert "These 4 comparisons were tested together (Holm)" in words


def test_an_untested_comparison_has_no_sentence() -> None:
    assert "against" not in said(comparisons=[a_comparison(gamma=6, verdict="not tested")])


def test_each_pair_of_drafts_and_temperature_has_its_own_sentence() -> None:
    some = [
        a_comparison(against=against, temperature=t, verdict="no difference shown")
        for against in ("control", "undistilled")
        for t in (1.0, 0.0)
    ]
    sentences = [line for line in said(comparisons=some).splitlines() if "against" in line]
    assert [line.split(":")[0] for line in sentences] == [
        "Distilled against undistilled at T = 0, gamma 2",
        "Distilled against undistilled at T = 1, gamma 2",
        "Distilled against control at T = 0, gamma 2",
        "Distilled against control at T = 1, gamma 2",
    ]


def test_a_null_result_in_alpha_is_a_sentence() -> None:
    words = said(
        comparisons=[
            a_comparison(quantity="alpha", gamma=None, value=0.8125, against_value=0.8129,
                         difference=Interval(-0.0004, -0.011, 0.011),
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
        divergences=[GreedyDivergence("distilled", "standard", 2, "a", 3, 0.0625)],
        documents=5,
    )
    assert "near-tie" not in words
    for part in (
        "less than 85%",
        "not quiet",
        "5 prompts come from 5 documents",
        "loops",
        "0.0625",
    ):
        assert part in words


def test_a_third_token_is_not_excused_by_the_gap_of_the_top_two() -> None:
    found = GreedyDivergence("distilled", "standard", 2, "a", 3, 0.0625, are_top_two=False)
    words = said(cells=[a_cell("distilled", 2, 1.0)], divergences=[found])
    assert "1 of them have a token that is not among the target's top two" in words


def test_cautions_of_a_card_leave_out_the_methods_that_engines_do_not_run() -> None:
    cells = [
        a_cell("distilled", 2, 1.0),
        a_cell("distilled", 2, 1.0, method="block", measured_over_predicted=0.1),
    ]
    apart = GreedyDivergence("distilled", "block", 2, "a", 3, 0.1)
    assert served_cautions(cells, [], [apart], 20, ["standard"]) == []
    (slow, texts) = served_cautions(cells, [], [apart], 20, ["standard", "block"])
    assert slow.startswith("1 of 2 cells")
    assert "differ from the baseline's" in texts
