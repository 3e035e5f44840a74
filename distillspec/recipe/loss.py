"""What a loss is made of: the divergences by name, their mixture, and the choice of tokens."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Section

Term = Literal[
    "forward_kl",
    "reverse_kl",
    "jsd",
    "tvd",
    "lk_alpha",
    "lk_lambda",
    "tvd_plus",
    "block_efficiency",
    "nll",
]


LossUnit = Literal["nats", "tokens", ""]
UNITS: dict[Term, LossUnit] = {
    "forward_kl": "nats",
    "reverse_kl": "nats",
    "jsd": "nats",
    "tvd": "",
    "lk_alpha": "nats",
    "lk_lambda": "",  # nats and a distance, mixed by alpha
    "tvd_plus": "",  # nats times an advantage without unit, whose mean over a step is 0
    "block_efficiency": "tokens",
    "nll": "nats",
}

_Weight = Annotated[float, Field(gt=0.0, le=1e6)]


class MixConfig(Section):
    """Weight of each loss in their sum; one that is not given is left out."""

    forward_kl: _Weight | None = None
    reverse_kl: _Weight | None = None
    jsd: _Weight | None = None
    tvd: _Weight | None = None
    lk_alpha: _Weight | None = None
    lk_lambda: _Weight | None = None
    tvd_plus: _Weight | None = None
    block_efficiency: _Weight | None = None
    nll: _Weight | None = None

    @property
    def terms(self) -> dict[Term, float]:
        """The losses that are given."""
        named = ((name, getattr(self, name)) for name in get_args(Term))
        return {name: weight for name, weight in named if weight is not None}

    @model_validator(mode="after")
    def _mixes_something(self) -> Self:
        if not self.terms:
            raise RefusedError(
                "distill.mix names no loss",
                keys=["forward_kl"],
                fix="give at least one weight: {forward_kl: 0.5, tvd: 0.5}",
            )
        return self


class SelectConfig(Section):
    """AdaSPEC: learn from the tokens that the draft can still learn most from (2510.19779)."""

    keep: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.4,
        description="share of a step's tokens: those with the largest KL(p || draft) - "
        "KL(p || reference)",
    )
    reference: str = Field(
        description="folder of a draft that was distilled by forward_kl from the same start"
    )
