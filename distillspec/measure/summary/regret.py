"""Regret of methods that choose: time lost against the best fixed arm, known in hindsight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums, by_document
from distillspec.measure.summary.cells import CellKey
from distillspec.measure.summary.records import Regret, RegretQuantity
from distillspec.measure.timed.rows import CellRow


class Arm(NamedTuple):
    """An arm of a chooser.

    Attributes:
        draft: The arm's draft; None: the chooser's draft.
    """

    method: str
    gamma: int
    draft: str | None = None


_COUNTED: dict[RegretQuantity, Callable[[CellRow], float]] = {
    "rounds": lambda row: float(row.counts.target_forwards),
    "seconds": lambda row: row.seconds,
}


def regrets(
    rows: Sequence[CellRow], choosers: Mapping[str, Sequence[Arm]], confidence: float
) -> list[Regret]:
    """Stopping-time regret (2505.15141) of each chooser, draft and temperature.

    All cells decoded the same prompts to the same length, with independent random numbers. An arm
    that is not a cell of the suite was not timed and is left out. A chooser without a timed arm has
    no regret.

    Args:
        rows: All rows of an evaluation.
        choosers: The arms of each chooser, by name.
        confidence: Confidence of the intervals.
    """
    # 1. Rows by cell and prompt; rows without a draft are the baseline.
    cells: dict[CellKey, dict[int, list[CellRow]]] = {}
    for row in rows:
        if row.draft is not None and row.method is not None and row.gamma is not None:
            key = CellKey(row.draft, row.method, row.gamma, row.temperature)
            cells.setdefault(key, {}).setdefault(row.prompt, []).append(row)
    order = {name: i for i, name in enumerate(choosers)}
    unit = {row.prompt: row.unit for row in rows}
    shown = []
    # 2. Each chooser against those of its arms that are cells of the suite.
    for key in cells:
        if key.method not in choosers:
            continue
        keys = {
            arm: CellKey(arm.draft or key.draft, arm.method, arm.gamma, key.temperature)
            for arm in choosers[key.method]
        }
        timed = {named(arm): arm_key for arm, arm_key in keys.items() if arm_key in cells}
        untimed = [named(arm) for arm, arm_key in keys.items() if arm_key not in cells]
        for quantity, count in _COUNTED.items():
            if timed:
                chosen = _by_prompt(cells[key], count)
                arms = {name: _by_prompt(cells[arm], count) for name, arm in timed.items()}
                documents = [unit[prompt] for prompt in sorted(cells[key])]
                shown.append(_regret(key, quantity, chosen, arms, untimed, documents, confidence))
    return sorted(
        shown, key=lambda regret: (regret.draft, regret.temperature, order[regret.method])
    )


def named(arm: Arm) -> str:
    return f"{arm.method}@{arm.gamma}"


def _by_prompt(
    cell: Mapping[int, Sequence[CellRow]], count: Callable[[CellRow], float]
) -> list[float]:
    """The mean over repeats of each prompt, in the order of the prompts."""
    return [sum(map(count, cell[i])) / len(cell[i]) for i in sorted(cell)]


def _regret(
    key: CellKey,
    quantity: RegretQuantity,
    chosen: Sequence[float],
    arms: Mapping[str, Sequence[float]],
    untimed: list[str],
    documents: Sequence[str],
    confidence: float,
) -> Regret:
    """The interval is corrected for picking the best arm. documents: of the prompts."""
    best = min(arms, key=lambda name: sum(arms[name]))
    # With denominators of 1, the ratio of sums is the ratio of totals.
    once = [1.0] * len(chosen)
    beyond = intervals.relative(
        by_document(Sums(chosen, once), documents),
        by_document(Sums(arms[best], once), documents),
        confidence,
        len(arms),
    )
    mean = [sum(of_prompt) / len(arms) for of_prompt in zip(*arms.values(), strict=True)]
    return Regret(
        draft=key.draft,
        method=key.method,
        temperature=key.temperature,
        quantity=quantity,
        arms=list(arms),
        untimed_arms=untimed,
        best_arm=best,
        chosen=sum(chosen),
        best=sum(arms[best]),
        mean=sum(mean),
        relative=beyond,
        regret=_beyond(chosen, arms[best]),
        mean_regret=_beyond(mean, arms[best]),
    )


def _beyond(needed: Sequence[float], best: Sequence[float]) -> list[float]:
    """The cumulative difference to the best arm after each prompt."""
    return list(accumulate(a - b for a, b in zip(needed, best, strict=True)))
