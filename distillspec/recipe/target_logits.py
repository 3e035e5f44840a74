"""Where the target's logits come from: the section `distill.target_logits`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillspec.recipe.section import Section, Tokens


class OnlineTargetConfig(Section):
    """The target runs on every batch and gives its entire distribution; nothing is kept."""

    kind: Literal["online"]


class CachedTargetConfig(Section):
    """The target runs once on known text, and its top-k logits are kept on disk."""

    kind: Literal["cached"]
    k: Tokens = Field(
        64,
        description="most probable tokens that are kept for each position, with the mass of the "
        "rest; more cost more disk",
    )
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="type of the kept log-probabilities; float16 halves the disk space"
    )
    store: str = Field(
        "data/signals",
        description="folder of the cache; recipes that need the same logits share it",
    )

    def bytes_per_token(self, vocab_size: int) -> int:
        """Of one record: ids of 2 bytes (3 from 2**16 tokens on), values, and the rest's 4."""
        of_id = 2 if vocab_size <= 2**16 else 3
        return self.k * (of_id + (2 if self.dtype == "float16" else 4)) + 4


TargetLogits = Annotated[OnlineTargetConfig | CachedTargetConfig, Field(discriminator="kind")]
