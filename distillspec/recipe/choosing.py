"""Methods that choose among several, as data, and the fallback around a method that adapts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillspec.recipe.method_rules import CHOOSE
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Count, Section

Scale = Annotated[float, Field(gt=0.0, le=1e6)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
PriorRounds = Annotated[float, Field(ge=0.0, le=1e9)]
_PRIOR = (
    "rounds that what the cost model expects of an arm counts as; 0 is published. Default: 1000, "
    "and 0 with reward: tokens or per: text"
)


class _Choose(Section):
    rules = CHOOSE

    arms: tuple[str, ...] = Field(
        min_length=1, description="methods of this suite, `name@gamma`; without @, all its gammas"
    )
    reward: Literal["tokens_per_second", "tokens"] = Field(
        "tokens_per_second",
        description="tokens: per round, as published; it favours the largest gamma",
    )
    memory: Literal["kept", "prompt"] = Field(
        "kept",
        description="kept: the chooser learns across prompts; prompt: it starts again with each",
    )
    per: Literal["round", "text"] = Field(
        "round",
        description="text: one arm decodes an entire text, which methods of two processes need",
    )


class UCBConfig(_Choose):
    kind: Literal["ucb"]
    scale: Scale = Field(0.5, description="of the bonus; 1 is published and explores for long")
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    prior: PriorRounds | None = Field(None, description=_PRIOR)
    discount: Share = Field(1.0, description="weight of a round after each further one")
    window: Count | None = Field(None, description="rounds that count; default: all")


class EXP3Config(_Choose):
    kind: Literal["exp3"]
    scale: Scale = Field(1.0, description="of the learning rate")
    prior: PriorRounds | None = Field(None, description=_PRIOR)
    estimate: Literal["published", "centred"] = Field(
        "published",
        description="how an arm's loss is estimated; centred: minus the mean loss so far, which "
        "has the same expected order of arms and less variance. Without a prior only",
    )


class HedgeConfig(_Choose):
    kind: Literal["hedge"]
    scale: Scale = Field(1.0, description="of the learning rate")


class FallbackConfig(Section):
    """Falls back to a method of the suite where the adaptive one is slower, and tries again."""

    baseline: str = Field(description="a method of this suite that adapts nothing, `name@gamma`")
    window: Count = Field(64, description="rounds that are compared")
    margin: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05, description="share of the baseline's tokens/s that may be lost"
    )
    pause: Count = Field(512, description="rounds until the other one is tried again")

    @model_validator(mode="after")
    def _pauses_long_enough(self) -> Self:
        if self.pause < self.window:
            raise RefusedError(
                f"pause ({self.pause}) must be at least window ({self.window})",
                keys=["pause", "window"],
                fix="raise pause, or lower window",
            )
        return self


Choose = Annotated[UCBConfig | EXP3Config | HedgeConfig, Field(discriminator="kind")]
