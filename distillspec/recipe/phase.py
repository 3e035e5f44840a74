"""A part of a training: an element of `distill.schedule`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from distillspec.recipe.loss import MixConfig, Term
from distillspec.recipe.section import Count, Section
from distillspec.recipe.target_logits import TargetLogits
from distillspec.recipe.text_source import SourceShares


class PhaseConfig(Section):
    """A part of the training; what it does not set is as in `distill`."""

    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        description="share of the run: of its steps, or of its minutes if they end it"
    )
    divergence: Term | Literal["mix"] | None = Field(None, description="see distill.divergence")
    mix: MixConfig | None = Field(None, description="see distill.mix")
    source: SourceShares | None = Field(None, description="see distill.source")
    target_logits: TargetLogits | None = Field(None, description="see distill.target_logits")
    until_alpha: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None,
        description="end the phase before its share when a probe finds this alpha; a draft that "
        "has it before training skips the phase. With an endpoint, no probe measures alpha",
    )
    patience: Count | None = Field(
        None,
        description="end the phase before its share after this many probes without a better draft",
    )

    @property
    def settings(self) -> dict[str, Any]:
        """What the phase sets, by key of `distill`."""
        named = {name: getattr(self, name) for name in OF_PHASE}
        given = {name: value for name, value in named.items() if value is not None}
        # The weights of a mixture belong to `mix` alone.
        if self.divergence not in (None, "mix"):
            given.setdefault("mix", None)
        return given


OF_PHASE = ("divergence", "mix", "source", "target_logits")
