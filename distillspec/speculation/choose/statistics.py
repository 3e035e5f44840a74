"""What choosers know of their arms, as plain data: written, read back, and checked."""

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
    """Arms by name and gamma, with the numbers of each and what its stop rule has learnt."""
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
    """The `width` numbers of each arm, whose stop rules go on from theirs.

    DistillSpecError if these are not its statistics.
    """
    wanted = [{"name": arm.name, "gamma": arm.gamma} for arm in arms]
    try:
        found_kind, found = state["kind"], state["arms"]
        names = [{"name": one["name"], "gamma": one["gamma"]} for one in found]
        values = [[float(number) for number in one["values"]] for one in found]
        stops = [[float(number) for number in one["stop"]] for one in found]
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign("these are no statistics of a chooser", where) from error
    if found_kind != kind:
        raise _foreign(f"these are statistics of the chooser {found_kind!r}, not {kind!r}", where)
    if names != wanted:
        raise _foreign(
            "these statistics are of other arms: "
            + ", ".join(f"{one['name']}@{one['gamma']}" for one in names),
            where,
        )
    fits = all(len(one) == width for one in values) and all(
        len(one) == len(arm.stop.state()) for one, arm in zip(stops, arms, strict=True)
    )
    if not fits or not all(map(math.isfinite, chain.from_iterable([*values, *stops]))):
        raise _foreign("an arm's numbers are missing, too many, or not finite", where)
    for one, arm in zip(stops, arms, strict=True):
        arm.stop.restore(one)
    return values


def _foreign(what: str, where: str) -> DistillSpecError:
    return DistillSpecError(
        what, where=where, fix="delete the file to begin anew, or name the one of this suite"
    )
