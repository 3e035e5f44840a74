"""The temperatures that distributions can be computed at."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from distillspec.recipe.rule import RefusedError

LOWEST_TEMPERATURE = 1e-5
HIGHEST_TEMPERATURE = 4.0
ALLOWED = f"0 (the most probable token), or {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}"


def is_computable(temperature: float) -> bool:
    """Whether logits can be divided by it: below the lowest they may become infinite, and NaN."""
    return temperature == 0.0 or LOWEST_TEMPERATURE <= temperature < float("inf")


def _checked(temperature: float) -> float:
    if not is_computable(temperature):
        raise RefusedError(
            f"a temperature of {temperature:g} cannot be computed",
            keys=[],
            fix=f"give {ALLOWED}",
            why="logits divided by it would overflow",
        )
    return temperature


Temperature = Annotated[float, Field(ge=0.0, le=HIGHEST_TEMPERATURE), AfterValidator(_checked)]
