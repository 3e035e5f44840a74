"""What a draft is made of where there is no small sibling of the target: a part of it, or chance.

Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillspec.errors import DistillSpecError
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Section, Tokens

_Index = Annotated[int, Field(ge=0, le=4095)]
Levels = Annotated[int, Field(ge=1, le=4096)]  # layers, heads
Width = Annotated[int, Field(ge=1, le=2**20)]


class LlamaShape(Section):
    hidden_size: Width
    intermediate_size: Width
    layers: Levels
    heads: Levels
    key_value_heads: Levels | None = Field(None, description="default: heads")
    max_positions: Tokens = Field(1024, description="longest context, tokens")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise RefusedError(
                f"hidden_size ({self.hidden_size}) must be an even multiple of heads "
                f"({self.heads})",
                keys=["hidden_size", "heads"],
                fix=f"set hidden_size to a multiple of {2 * self.heads}, or change heads",
                why="each head rotates pairs of channels",
            )
        if self.heads % (self.key_value_heads or self.heads):
            raise RefusedError(
                f"heads ({self.heads}) must be a multiple of key_value_heads "
                f"({self.key_value_heads})",
                keys=["heads", "key_value_heads"],
                fix="change one of them; equal numbers always fit",
                why="each key-value head serves the same number of heads",
            )
        return self


class PrunedDraftConfig(Section):
    """A copy of the target with some of its layers, and less of their width where asked for.

    Width is kept by the size of the weights (`models/surgery/pruning.py`). Training repairs the
    rest.
    """

    kind: Literal["pruned"]
    layers: Levels | Annotated[tuple[_Index, ...], Field(min_length=1)] = Field(
        description="how many layers are kept, evenly spread, the first and the last among them; "
        "or which, counted from 0"
    )
    intermediate_size: Width | None = Field(
        None, description="neurons kept in each feed-forward part; default: all"
    )
    key_value_heads: Levels | None = Field(
        None, description="key-value heads kept, each with all queries that read it; default: all"
    )
    hidden_size: Width | None = Field(
        None, description="channels kept between the layers; default: all"
    )
    channels: Literal["largest", "principal"] = Field(
        "largest",
        description="what hidden_size keeps. largest: the channels with the largest weights; "
        "principal: mixtures of all channels, the principal directions of the embeddings",
    )

    @model_validator(mode="after")
    def _cuts_channels(self) -> Self:
        if self.channels == "principal" and self.hidden_size is None:
            raise RefusedError(
                "channels: principal is given, and hidden_size is missing",
                keys=["channels", "hidden_size"],
                fix="set hidden_size, or remove channels",
                why="channels chooses what hidden_size keeps",
            )
        return self

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if not isinstance(self.layers, int) and list(self.layers) != sorted(set(self.layers)):
            raise RefusedError(
                "layers must be distinct and in ascending order, as in the target",
                keys=["layers"],
                fix=f"write layers: {sorted(set(self.layers))}",
            )
        return self

    def kept_layers(self, layers: int) -> tuple[int, ...]:
        """Which of the target's `layers` layers; DistillSpecError where it has not so many."""
        if isinstance(self.layers, int):
            if self.layers <= layers:
                # Both ends are kept; a single layer is the first.
                steps = max(self.layers - 1, 1)
                return tuple(round(i * (layers - 1) / steps) for i in range(self.layers))
            asked = f"{self.layers} layers cannot be kept"
        else:
            if self.layers[-1] < layers:
                return self.layers
            missing = [str(layer) for layer in self.layers if layer >= layers]
            asked = f"there is no layer {', '.join(missing)} to keep"
        raise DistillSpecError(
            f"{asked}: the target has {layers}",
            where="pair.draft.layers",
            fix=f"name layers from 0 to {layers - 1}, or at most {layers} of them",
        )

    def in_words(self) -> str:
        """Such as `layers 0, 7, 15 of the target`."""
        if isinstance(self.layers, int):
            what = f"{self.layers} layer{'s' * (self.layers > 1)} of the target"
        else:
            what = f"layers {', '.join(map(str, self.layers))} of the target"
        widths = {
            "intermediate size": self.intermediate_size,
            "key-value heads": self.key_value_heads,
            "hidden size" if self.channels == "largest" else "principal directions": (
                self.hidden_size
            ),
        }
        cuts = [f"{name} {size}" for name, size in widths.items() if size is not None]
        return f"{what}, cut to {', '.join(cuts)}" if cuts else what


class RandomDraftConfig(Section):
    """Random weights in the Llama architecture, drawn from the recipe's seed."""

    kind: Literal["random"]
    shape: LlamaShape

    def in_words(self) -> str:
        """Such as `random weights, Llama of 2 layers, hidden size 256`."""
        return (
            f"random weights, Llama of {self.shape.layers} "
            f"layer{'s' * (self.shape.layers > 1)}, hidden size {self.shape.hidden_size}"
        )


class DraftHeadConfig(Section):
    """The draft scores the tokens most frequent in text of the target alone (2506.22694)."""

    keep: Tokens = Field(description="tokens that the draft's output head keeps")


MadeDraft = Annotated[PrunedDraftConfig | RandomDraftConfig, Field(discriminator="kind")]
