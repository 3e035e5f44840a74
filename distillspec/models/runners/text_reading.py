"""A text that a model has read, in one or several rows: it can be continued or rolled back.

Causal and encoder-decoder models share this protocol; runners are built on it.
"""

from __future__ import annotations

from typing import Protocol, Self

from torch import Tensor
from transformers import PreTrainedModel

from distillspec.models.runners.cache import GrowingCache, check_rolls_back
from distillspec.models.runners.encoder_decoder import is_encoder_decoder
from distillspec.models.runners.encoder_decoder_reading import EncoderDecoderReading


class TextReading(Protocol):
    """Rows of equal length and the model's memory of them."""

    @property
    def rows(self) -> int:
        """Number of texts; 0 or 1 before the first token."""
        ...

    def feed(self, tokens: Tensor) -> Tensor:
        """long [B, G], on the model's device -> logits [B, G, V] after each token."""
        ...

    def keep(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        ...

    def repeated(self, rows: int) -> Self:
        """A copy of the only text in each of `rows` rows."""
        ...

    def one_row(self, row: int, length: int) -> Self:
        """A copy of the first `length` tokens of one row."""
        ...


def reading(model: PreTrainedModel) -> TextReading:
    """An empty reading.

    Raises:
        DistillSpecError: The model's memory cannot be rolled back.
    """
    check_rolls_back(model)
    return EncoderDecoderReading(model) if is_encoder_decoder(model) else CausalReading(model)


class CausalReading:
    """The text that a causal model has read: its cache."""

    def __init__(self, model: PreTrainedModel, cache: GrowingCache | None = None) -> None:
        self._model = model
        self._cache = GrowingCache() if cache is None else cache

    @property
    def rows(self) -> int:
        return self._cache.rows

    def feed(self, tokens: Tensor) -> Tensor:
        output = self._model(input_ids=tokens, past_key_values=self._cache, use_cache=True)
        logits: Tensor = output.logits
        return logits

    def keep(self, length: int) -> None:
        self._cache.keep(length)

    def repeated(self, rows: int) -> CausalReading:
        return CausalReading(self._model, self._cache.repeated(rows))

    def one_row(self, row: int, length: int) -> CausalReading:
        return CausalReading(self._model, self._cache.one_row(row, length))
