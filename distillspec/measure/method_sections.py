"""Methods on the report's page: which is fastest, and what choosing has cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distillspec.measure.html_table import interval, number, table
from distillspec.measure.summary import Oracle, Ranked, Summary


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
            [
                f"{one.temperature:g}",
                one.draft,
                one.method,
                str(one.gamma),
                number(one.tokens_per_second, ".0f"),
                number(one.tau),
                number(one.drafted_per_token),
                number(one.wasted_per_token),
                number(one.forwards_per_token),
                *(
                    [number(one.target_busy, ".0%"), number(one.draft_busy, ".0%")]
                    if is_parallel
                    else []
                ),
                number(1.0 + one.relative, ".0%"),
                interval(1.0 + one.relative_low, 1.0 + one.relative_high, ".0%"),
                one.verdict,
            ],
        )
        for one in ranking
    ]
    hindsight = [(one.temperature, "null", _oracle(one, is_parallel)) for one in oracles]
    rows = sorted([*hindsight, *ranked], key=lambda row: row[0])
    return table(columns, [(style, line) for _, style, line in rows], words=3)


def _oracle(one: Oracle, is_parallel: bool) -> list[str]:
    return [
        f"{one.temperature:g}",
        one.draft,
        f"oracle on {one.method}",
        str(one.gamma),
        number(one.tokens_per_second, ".0f"),
        number(one.tau),
        number(one.drafted_per_token),
        number(0.0),
        number(one.forwards_per_token),
        *(["", ""] if is_parallel else []),
        number(1.0 + one.relative, ".0%"),
        interval(1.0 + one.relative_low, 1.0 + one.relative_high, ".0%"),
        "oracle, not a method",
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
                number(one.mean / one.best - 1.0, "+.1%"),
            ],
        )
        for one in summary.regrets
    ]
    return table(columns, rows, words=6)
