"""Where the text of a training comes from: the section `distill.source`, and what belongs to it."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from distillspec.recipe.distill_rules import SOURCE
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Count, Rows, Section, Share

Origin = Literal["fixed", "target", "draft", "speculative", "replay"]


class SourceShares(Section):
    """Where responses come from; the shares add up to 1."""

    rules = SOURCE

    fixed: Share = Field(0.0, description="the data set's own responses")
    target: Share = Field(
        0.0, description="sampled from the target once, stored; with per: token, now"
    )
    draft: Share = Field(0.0, description="sampled now from the draft's current weights")
    speculative: Share = Field(
        0.0,
        description="sampled from the target now, by speculative decoding with the draft's "
        "current weights; set it up in distill.speculative",
    )
    replay: Share = Field(
        0.0, description="draft or speculative responses of earlier steps: see distill.replay"
    )
    per: Literal["sequence", "batch", "token"] = Field(
        "sequence",
        description="what the shares divide: the sequences of each batch, entire batches, or "
        "the tokens of each sequence, which draft and target then write by turns",
    )

    @property
    def of(self) -> dict[Origin, float]:
        """The shares that are not 0."""
        shares = {origin: float(getattr(self, origin)) for origin in get_args(Origin)}
        return {origin: share for origin, share in shares.items() if share > 0.0}

    @property
    def stored(self) -> dict[Origin, float]:
        """The shares of text that is there before training."""
        origins: tuple[Origin, ...] = ("fixed",) if self.per == "token" else ("fixed", "target")
        return {origin: share for origin, share in self.of.items() if origin in origins}

    @property
    def is_drafts(self) -> bool:
        """Whether the draft as it is now has drawn every token."""
        return set(self.of) == {"draft"}

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        total = sum(self.of.values())
        if abs(total - 1.0) > 1e-6:
            raise RefusedError(
                f"the shares {' + '.join(get_args(Origin))} must add up to 1, not {total:g}",
                keys=[],
                fix="change the shares, such as {draft: 0.5, target: 0.5}",
            )
        return self


class ReplayConfig(Section):
    """A ring of the latest responses that were written during training."""

    sequences: Rows = Field(256, description="responses kept for replay, over all processes")
    max_age: Count = Field(
        20,
        description="largest age of a replayed response, optimizer steps; new ones are written "
        "where all are older",
    )


class SpeculativeConfig(Section):
    """Training text by speculative decoding: it follows the target's distribution."""

    gamma: Annotated[int, Field(ge=1, le=16)] = Field(4, description="tokens drafted a round")
    rejected: bool = Field(
        False,
        description="learn at every drafted position, also after a rejected token, weighed by the "
        "probability that a round reaches it; this estimates the loss on the text with less noise",
    )
