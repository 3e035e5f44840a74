"""Drafts and cells on the report's page: compared, recommended, by category, and all of them."""

from __future__ import annotations

from collections.abc import Sequence

from distillspec.measure.summary.breakdown import FEW, CategoryCell
from distillspec.measure.summary.records import Cell, DraftComparison, Recommendation, Summary
from distillspec.report.figures.theme import degrees
from distillspec.report.html_table import table
from distillspec.text.numbers import interval, number


def comparisons(summary: Summary) -> str:
    columns = ("draft", "against", "T", "gamma", "of", "against", "draft", "difference")
    more = (f"{summary.confidence:.0%} interval", "relative", "verdict")
    return table((*columns, *more), [_comparison(one) for one in summary.comparisons], words=2)


def _comparison(one: DraftComparison) -> tuple[str, list[str]]:
    form = {"tau": ".2f", "speed": ".0f"}.get(one.quantity, ".3f")
    cells = [
        one.draft,
        one.against,
        f"{one.temperature:g}",
        "" if one.gamma is None else str(one.gamma),
        "tokens/s" if one.quantity == "speed" else one.quantity,
        number(one.against_value, form),
        number(one.value, form),
        number(one.difference, "+" + form),
        interval(one.low, one.high, "+" + form),
        number(one.relative, "+.1%"),
        "" if one.verdict == "not tested" else one.verdict,
    ]
    return (one.verdict if one.verdict in ("higher", "lower") else "null"), cells


def recommendations(recommendation: Sequence[Recommendation]) -> str:
    rows = [
        (
            "",
            [
                one.draft,
                "all" if one.temperature is None else degrees(one.temperature),
                one.words,
            ],
        )
        for one in recommendation
    ]
    return table(("draft", "temperature", "recommendation"), rows, words=3)


def categories(summary: Summary) -> str:
    several = len(summary.methods()) > 1
    columns = (
        "category",
        "draft",
        *(["method"] if several else []),
        "T",
        "gamma",
        "prompts",
        "accepted",
        "interval",
        "tau",
        "interval",
        "speed-up",
        "interval",
    )
    note = (
        "<p>At the best measured gamma of each draft, method and temperature. Of categories with "
        f"fewer than {FEW} prompts only the counts are told. Each interval stands alone.</p>"
    )
    rows = [
        ("null" if one.prompts < FEW else "", _category(one, several))
        for one in summary.best_by_category()
    ]
    return note + table(columns, rows, words=3 if several else 2)


def _category(one: CategoryCell, several: bool) -> list[str]:
    few = one.prompts < FEW
    return [
        one.category,
        one.draft,
        *([one.method] if several else []),
        f"{one.temperature:g}",
        str(one.gamma),
        str(one.prompts),
        f"{one.accepted} of {one.drafted}" if few else number(one.draft_acceptance, ".1%"),
        interval(one.draft_acceptance_low, one.draft_acceptance_high, ".1%"),
        f"{one.emitted} in {one.verifications}" if few else number(one.tau),
        interval(one.tau_low, one.tau_high),
        number(one.speedup),
        interval(one.speedup_low, one.speedup_high, ".2f"),
    ]


def cells(summary: Summary, names: Sequence[str]) -> str:
    several = len(summary.methods()) > 1
    columns = (
        "draft",
        *(["method"] if several else []),
        "T",
        "gamma",
        "alpha",
        "alpha, argmax",
        "accepted",
        "tau",
        "interval",
        "expected tau",
        "interval",
        "c",
        "v",
        "predicted",
        "from alpha",
        "measured",
        "interval",
        "with prefill",
        "of predicted",
        "tokens/s",
        "break-even",
        "cap",
    )
    rows = [
        ("slow" if cell.speedup < 1.0 else "", _cell(cell, several))
        for name in names
        for cell in summary.cells
        if cell.draft == name
    ]
    return table(columns, rows, words=2 if several else 1)


def _cell(cell: Cell, several: bool) -> list[str]:
    return [
        cell.draft,
        *([cell.method] if several else []),
        f"{cell.temperature:g}",
        str(cell.gamma),
        number(cell.alpha, ".3f"),
        number(cell.alpha_argmax, ".3f"),
        number(cell.draft_acceptance, ".1%"),
        number(cell.tau),
        interval(cell.tau_low, cell.tau_high),
        number(cell.expected_tau, ".3f"),
        interval(cell.expected_tau_low, cell.expected_tau_high, ".3f"),
        number(cell.draft_to_target_time, ".3f"),
        number(cell.v),
        number(cell.predicted_speedup, unit="×"),
        number(cell.predicted_from_alpha, unit="×"),
        number(cell.speedup, unit="×"),
        interval(cell.speedup_low, cell.speedup_high),
        number(cell.speedup_with_prefill, unit="×"),
        number(cell.measured_over_predicted, ".0%"),
        number(cell.tokens_per_second, ".0f"),
        number(cell.break_even_alpha, ".3f"),
        number(cell.perfect_draft_cap, unit=f"× at {cell.perfect_draft_gamma}"),
    ]


def baseline(summary: Summary) -> str:
    columns = (
        "temperature",
        "tokens/s",
        "interval",
        "one-token step, ms",
        "prefill, ms",
        "entropy, nats",
        "after end-of-text",
        "repeated 4-grams",
    )
    rows = [
        (
            "",
            [
                degrees(one.temperature),
                number(one.tokens_per_second, ".0f"),
                interval(one.tokens_per_second_low, one.tokens_per_second_high, ".0f"),
                number(1e3 * one.target_step_seconds),
                number(1e3 * one.prefill_seconds, ".1f"),
                number(one.entropy_nats),
                number(one.after_end_share, ".1%"),
                number(one.repeated_ngram_share, ".1%"),
            ],
        )
        for one in summary.baseline
    ]
    return table(columns, rows)
