"""The columns of every table of an evaluation, and the rows that each view shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from distillspec.measure.stats.intervals import NOTHING, Interval
from distillspec.measure.summary.breakdown import FEW
from distillspec.measure.summary.cells import Cell
from distillspec.measure.summary.records import DraftComparison, Oracle, Ranked, Regret, Summary
from distillspec.report.figures.theme import ordered
from distillspec.report.grid import CARD, PAGE, TERMINAL, Column, Grid, Row, View, grid
from distillspec.text.numbers import number


def _without_single_method(summary: Summary, columns: Sequence[Column]) -> list[Column]:
    several = len(summary.methods()) > 1
    return [column for column in columns if several or column is not _METHOD]


_T = Column("T", "temperature", "g", terminal="value", card="value")
_DRAFT = Column("draft", "draft", terminal="value", card="value")
_METHOD = Column("method", "method", terminal="value", card="value")
_GAMMA = Column("gamma", "gamma", "d", terminal="value", card="value")

# --- cells ----------------------------------------------------------------------------------------

_CELL_T = _T._replace(terminal="hidden")  # it is in the heading there
_ARGMAX = Column("alpha, argmax", "alpha_argmax", ".3f", terminal="value", card="both")
_CELLS = (
    _CELL_T,
    _DRAFT,
    _METHOD,
    _GAMMA,
    Column("alpha", "alpha", ".3f", terminal="value", card="both"),
    _ARGMAX,
    Column("accepted", "draft_acceptance", ".1%", terminal="value"),
    Column("expected tau", "expected_tau", ".3f", page="bounds", terminal="value", card="both"),
    Column("tau", "tau", ".2f", page="bounds", terminal="value", card="both"),
    Column("c", "draft_to_target_time", ".3f", terminal="value"),
    Column("v", "v", ".2f", terminal="value"),
    Column("predicted", "predicted_speedup", ".2f", "x", terminal="value"),
    Column("from alpha", "predicted_from_alpha", ".2f", "x"),
    Column("speed-up", "speedup", ".2f", "x", page="bounds", terminal="bounds", card="both"),
    Column("with prefill", "speedup_with_prefill", ".2f", "x"),
    Column("of predicted", "measured_over_predicted", ".0%"),
    Column("tokens/s", "tokens_per_second", ".0f", terminal="value", card="value"),
    Column("break-even", "break_even_alpha", ".3f"),
    Column("cap", lambda c: number(c.perfect_draft_cap, unit=f"x at {c.perfect_draft_gamma}"), "s"),
)


def page_cells(summary: Summary) -> Grid:
    """All cells, draft by draft."""
    rows = _cell_rows(summary, None)
    return grid(summary, _without_single_method(summary, _CELLS), rows, PAGE)


def terminal_cells(summary: Summary, temperature: float) -> Grid:
    """The cells of a temperature, draft by draft; at temperature 0 argmax drafts are the same."""
    columns = [
        c for c in _without_single_method(summary, _CELLS) if temperature or c is not _ARGMAX
    ]
    return grid(summary, columns, _cell_rows(summary, temperature), TERMINAL)


def card_cells(summary: Summary, cells: Iterable[Cell]) -> Grid:
    """The given cells; at temperature 0 argmax drafts are the same."""
    argmax = _ARGMAX._replace(value=lambda c: c.alpha_argmax if c.temperature else "as alpha")
    columns = [argmax if column is _ARGMAX else column for column in _CELLS]
    return grid(summary, columns, map(Row, cells), CARD)


def _cell_rows(summary: Summary, temperature: float | None) -> list[Row]:
    """Cells of one temperature or of all. `best` is each draft's fastest gamma at a temperature."""
    rows = []
    for draft in ordered(summary.drafts()):
        cells = [cell for cell in summary.cells if cell.draft == draft]
        for cell in cells:
            rivals = [c.speedup.value for c in cells if c.temperature == cell.temperature]
            is_best = cell.speedup.value == max(filter(math.isfinite, rivals), default=math.nan)
            is_slow = cell.speedup.value < 1.0
            if temperature in (None, cell.temperature):
                rows.append(Row(cell, " ".join(["best"] * is_best + ["slow"] * is_slow)))
    return rows


_CATEGORIES = (
    _T,
    Column("category", "category", terminal="value"),
    _DRAFT._replace(terminal="hidden"),  # the terminal shows one draft
    _METHOD,
    _GAMMA,
    Column("prompts", "prompts", "d", terminal="value"),
    Column(
        "accepted",
        lambda c: f"{c.accepted} of {c.drafted}" if c.prompts < FEW else c.draft_acceptance,
        ".1%",
        page="bounds",
        terminal="bounds",
    ),
    Column(
        "tau",
        lambda c: f"{c.emitted} in {c.verifications}" if c.prompts < FEW else c.tau,
        ".2f",
        page="bounds",
        terminal="value",
    ),
    Column("speed-up", "speedup", ".2f", "x", page="bounds", terminal="bounds"),
)


def categories(summary: Summary, view: View) -> Grid:
    """Cells by category: all drafts on the page, the shown one in the terminal."""
    cells = summary.best_by_category()
    if view is TERMINAL:
        cells = [cell for cell in cells if cell.draft == summary.shown_draft]
    rows = [Row(cell, "null" if cell.prompts < FEW else "") for cell in cells]
    return grid(summary, _without_single_method(summary, _CATEGORIES), rows, view)


_BASELINE = (
    _T,
    Column("tokens/s", "tokens_per_second", ".0f", page="bounds"),
    Column("one-token step, ms", lambda b: 1e3 * b.target_step_seconds, ".2f"),
    Column("prefill, ms", lambda b: 1e3 * b.prefill_seconds, ".1f"),
    Column("entropy, nats", "entropy_nats", ".2f"),
    Column("after end-of-text", "after_end_share", ".1%"),
    Column("repeated 4-grams", "repeated_ngram_share", ".1%"),
)


def baseline(summary: Summary) -> Grid:
    return grid(summary, _BASELINE, map(Row, summary.baseline), PAGE)


# --- drafts and methods against each other --------------------------------------------------------


def _form(comparison: DraftComparison) -> str:
    return {"tau": ".2f", "speed": ".0f"}.get(comparison.quantity, ".3f")


_COMPARISONS = (
    _DRAFT,
    Column("against", "against", terminal="value"),
    _T,
    Column("gamma", lambda c: "" if c.gamma is None else c.gamma, "d", terminal="value"),
    Column(
        "quantity",
        lambda c: "tokens/s" if c.quantity == "speed" else c.quantity,
        terminal="value",
    ),
    Column("against value", "against_value", _form, terminal="value"),
    Column("draft value", "value", _form, terminal="value"),
    Column(
        "difference",
        "difference",
        lambda c: f"+{_form(c)}",
        page="bounds",
        terminal="bounds",
    ),
    Column("relative", "relative", "+.1%", terminal="value"),
    Column(
        "verdict",
        lambda c: "" if c.verdict == "not tested" else c.verdict,
        terminal="value",
    ),
)


def comparisons(summary: Summary, view: View) -> Grid:
    """Drafts against each other, pair by pair."""
    rows = [
        Row(c, c.verdict if c.verdict in ("higher", "lower") else "null")
        for c in summary.comparisons
    ]
    return grid(summary, _COMPARISONS, rows, view)


def _of_the_fastest(ranked: Ranked | Oracle) -> Interval:
    """Speed over the fastest cell's. Few documents bound little, and one bounds nothing."""
    share = Interval(*(1.0 + part for part in ranked.relative))
    return share if share.high < _BOUNDLESS else NOTHING._replace(value=share.value)


_BOUNDLESS = 100.0  # times the fastest: no bound for a reader
_RANKING = (
    _T,
    _DRAFT,
    Column(
        "method",
        lambda r: f"oracle on {r.method}" if isinstance(r, Oracle) else r.method,
        terminal="value",
    ),
    _GAMMA,
    Column("tokens/s", "tokens_per_second", ".0f", terminal="value"),
    Column("tau", "tau", ".2f", terminal="value"),
    Column("drafted/token", "drafted_per_token", ".2f", terminal="value"),
    Column(
        "wasted/token",
        lambda r: 0.0 if isinstance(r, Oracle) else r.wasted_per_token,
        ".2f",
        terminal="value",
    ),
    Column("forwards/token", "forwards_per_token", ".2f", terminal="value"),
    Column("target busy", lambda r: "" if isinstance(r, Oracle) else r.target_busy, ".0%"),
    Column("draft busy", lambda r: "" if isinstance(r, Oracle) else r.draft_busy, ".0%"),
    Column("of the fastest", _of_the_fastest, ".0%", page="bounds", terminal="bounds"),
    Column(
        "",
        lambda r: "oracle, not a method" if isinstance(r, Oracle) else r.verdict,
        terminal="value",
    ),
)


def ranking(summary: Summary, view: View) -> Grid:
    """At each temperature the oracles, then the methods by speed."""
    rows = [Row(oracle, "oracle") for oracle in summary.oracles]
    rows += [
        Row(ranked, "near" if ranked.verdict == "within noise of it" else ranked.verdict)
        for ranked in summary.ranking
    ]
    # The sort is stable: oracles stay before methods at each temperature.
    rows.sort(key=lambda row: row.record.temperature)
    is_parallel = any(not math.isnan(ranked.target_busy) for ranked in summary.ranking)
    columns = [c for c in _RANKING if is_parallel or not c.title.endswith(" busy")]
    return grid(summary, columns, rows, view)


def _arms(regret: Regret) -> str:
    untimed = f", not timed: {', '.join(regret.untimed_arms)}" if regret.untimed_arms else ""
    return f"{len(regret.arms)}{untimed}"


_REGRETS = (
    _T,
    _DRAFT,
    _METHOD,
    Column("in", "quantity"),
    Column("best arm", "best_arm"),
    Column("of arms", _arms),
    Column("needed", "chosen", ".5g"),
    Column("best arm's", "best", ".5g"),
    Column("mean arm's", "mean", ".5g"),
    Column("beyond the best", "relative", "+.1%", page="bounds"),
    Column("mean arm beyond it", lambda r: r.mean / r.best - 1.0 if r.best else None, "+.1%"),
)


def regrets(summary: Summary) -> Grid:
    """Methods that choose, against their arms."""
    rows = [
        Row(regret, "null" if regret.relative.low <= 0.0 <= regret.relative.high else "")
        for regret in summary.regrets
    ]
    return grid(summary, _REGRETS, rows, PAGE)


# --- advice and texts -----------------------------------------------------------------------------

_RECOMMENDATIONS = (
    _DRAFT,
    Column("T", lambda r: "all" if r.temperature is None else f"{r.temperature:g}"),
    Column("recommendation", "words"),
)
_QUALITY = (
    Column("completions of", "completions_of"),
    Column("metric", "metric"),
    _T,
    Column("completions", "completions", "d"),
    Column(
        "scores",
        lambda q: (
            ", ".join(f"{name} {number(score, '.3g')}" for name, score in q.scores.items())
            or "no references"
        ),
    ),
)
_DIVERGENCES = (
    Column("prompt", "prompt_key"),
    _DRAFT,
    _METHOD,
    _GAMMA,
    Column("token", "position", "d"),
    Column("gap of the logits", "gap", ".3g"),
    Column("top two", lambda d: "yes" if d.are_top_two else "NO"),
)


def recommendations(summary: Summary) -> Grid:
    return grid(summary, _RECOMMENDATIONS, map(Row, summary.recommendation), PAGE)


def quality(summary: Summary) -> Grid:
    return grid(summary, _QUALITY, map(Row, summary.quality), PAGE)


def divergences(summary: Summary) -> Grid:
    return grid(summary, _DIVERGENCES, map(Row, summary.greedy_divergences), PAGE)
