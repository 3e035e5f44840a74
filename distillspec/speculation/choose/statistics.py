"""The statistics of choosers as plain data: written, read back and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from distillspec.errors import DistillSpecError
from distillspec.speculation.choose.configuration import Configuration


def arms_of(
    arms: Sequence[Configuration], values: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Arms by name and gamma, with the numbers of each and the state of its stop rule."""
    return [
        {
            "name": arm.name,
            "gamma": arm.gamma,
            "values": list(numbers),
            "stop": arm.stop.state(),
        }
        for arm, numbers in zip(arms, values, strict=True)
    ]


def read_arms(
    state: Any, kind: str, arms: Sequence[Configuration], width: int, where: str
) -> list[list[float]]:
    """Read the statistics of a chooser and restore its arms' stop rules.

    Args:
        state: What a chooser's `state` returned.
        kind: The chooser that reads it.
        arms: The arms of that chooser.
        width: Numbers per arm.
        where: File and key of the state, for the error.

    Returns:
        The numbers of each arm.

    Raises:
        DistillSpecError: The state is not that of this chooser and these arms.
    """
    wanted = [{"name": arm.name, "gamma": arm.gamma} for arm in arms]
    try:
        state_kind, entries = state["kind"], state["arms"]
        names = [{"name": entry["name"], "gamma": entry["gamma"]} for entry in entries]
        values = [[float(number) for number in entry["values"]] for entry in entries]
        stops = [[float(number) for number in entry["stop"]] for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign("the file holds no statistics of a chooser", where) from error
    if state_kind != kind:
        raise _foreign(f"the statistics are of chooser {state_kind!r}, not {kind!r}", where)
    if names != wanted:
        raise _foreign(
            "the statistics are of other arms: "
            + ", ".join(f"{arm['name']}@{arm['gamma']}" for arm in names),
            where,
        )
    fits = all(len(numbers) == width for numbers in values) and all(
        len(learnt) == len(arm.stop.state()) for learnt, arm in zip(stops, arms, strict=True)
    )
    if not fits or not all(map(math.isfinite, chain.from_iterable([*values, *stops]))):
        raise _foreign("an arm has numbers that are missing, surplus or not finite", where)
    # After all checks: a refused state must change no stop rule.
    for learnt, arm in zip(stops, arms, strict=True):
        arm.stop.restore(learnt)
    return values


def _foreign(what: str, where: str) -> DistillSpecError:
    return DistillSpecError(
        what,
        where=where,
        fix="delete the file to start without statistics, or give the file of this suite",
    )
