"""Methods on the report's page: which is fastest, and what choosing has cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distillspec.measure.summary.records import Oracle, Ranked, Summary
from distillspec.report.html_table import table
from distillspec.text.numbers import interval, number


def ranking(ranking: Sequence[Ranked], oracles: Sequence[Oracle] = ()) -> str:
    """Of each temperature: what an oracle would reach, then the methods by speed.

    Busy shares are told where a method has them.
    """
    is_parallel = any(not math.isnan(one.target_busy) for one in ranking)
    columns = (
        "T",
        "draft",
        "method",
        "gamma",
        "tokens/s",
        "tau",
        "drafted per token",
        "of them wasted",
        "forwards per token",
        *(["target busy", "draft busy"] if is_parallel else []),
        "of the fastest",
        "interval",
        "",
    )
    ranked = [
        (
            one.temperature,
            "null" if one.verdict == "within noise of it" else "",
            _line(
                one,
                one.method,
                one.wasted_per_token,
                [number(x, ".0%") for x in (one.target_busy, one.draft_busy) if is_parallel],
                one.verdict,
            ),
        )
        for one in ranking
    ]
    no_time = ["", ""] if is_parallel else []
    hindsight = [
        (
            one.temperature,
            "null",
            _line(one, f"oracle on {one.method}", 0.0, no_time, "oracle, not a method"),
        )
        for one in oracles
    ]
    rows = sorted([*hindsight, *ranked], key=lambda row: row[0])
    return table(columns, [(style, line) for _, style, line in rows], words=3)


def _line(
    one: Ranked | Oracle, method: str, wasted: float, busy: Sequence[str], verdict: str
) -> list[str]:
    return [
        f"{one.temperature:g}",
        one.draft,
        method,
        str(one.gamma),
        number(one.tokens_per_second, ".0f"),
        number(one.tau),
        number(one.drafted_per_token),
        number(wasted),
        number(one.forwards_per_token),
        *busy,
        number(1.0 + one.relative, ".0%"),
        interval(1.0 + one.relative_low, 1.0 + one.relative_high, ".0%"),
        verdict,
    ]


def regrets(summary: Summary) -> str:
    columns = (
        "T",
        "draft",
        "method",
        "in",
        "best arm",
        "of arms",
        "needed",
        "best arm's",
        "mean arm's",
        "beyond the best",
        f"{summary.confidence:.0%} interval",
        "mean arm beyond it",
    )
    rows = [
        (
            "null" if one.relative_low <= 0.0 <= one.relative_high else "",
            [
                f"{one.temperature:g}",
                one.draft,
                one.method,
                one.quantity,
                one.best_arm,
                f"{len(one.arms)}"
                + (f", not timed: {', '.join(one.untimed_arms)}" if one.untimed_arms else ""),
                *(number(x, ".5g") for x in (one.chosen, one.best, one.mean)),
                number(one.relative, "+.1%"),
                interval(one.relative_low, one.relative_high, "+.1%"),
                number(one.mean / one.best - 1.0 if one.best else None, "+.1%"),
            ],
        )
        for one in summary.regrets
    ]
    return table(columns, rows, words=6)
