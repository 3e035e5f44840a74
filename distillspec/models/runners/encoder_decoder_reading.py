"""A text that an encoder-decoder model reads token by token, and its two caches."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from distillspec.models.runners.cache import GrowingCache
from distillspec.models.runners.encoder_decoder import start_token


class EncoderDecoderReading:
    """`TextReading` of an encoder-decoder model.

    The encoder runs once per source, when the response starts. Then the decoder's cache grows.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._start = start_token(model)
        self._source = torch.empty(1, 0, dtype=torch.long, device=model.device)
        self._encoded: Tensor | None = None  # [B, S, H]
        self._cache = empty_caches()

    @property
    def rows(self) -> int:
        """Number of texts."""
        return self._source.shape[0]

    def feed(self, tokens: Tensor) -> Tensor:
        """long [B, G] -> logits [B, G, V] after each token; nan inside the source."""
        if self._has_begun:
            return self._decoded(tokens)
        # 1. Tokens before the start token belong to the source. All rows share one source.
        starts = (tokens[0] == self._start).nonzero()
        read = int(starts[0]) if len(starts) else tokens.shape[1]
        # A longer source is another source: what the encoder has read no longer counts.
        if read:
            self._source = torch.cat([self._source, tokens[:, :read]], dim=1)
            self._encoded, self._cache = None, empty_caches()
        if not len(starts):
            self._encoding()  # now, so that it counts as prompt time, not decoding time
            return self._nothing(tokens.shape)
        # 2. The remaining tokens go to the decoder. Inside the source there are no logits.
        logits = self._decoded(tokens[:, read:])
        if not read:
            return logits
        return torch.cat([self._nothing(tokens[:, :read].shape, logits.shape[-1]), logits], dim=1)

    def keep(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        source = self._source.shape[1]
        if length >= source:
            both_caches(self._cache)[0].keep(length - source)
            return
        # The cut is inside the source, so the encoder must read it again.
        self._source, self._encoded = self._source[:, :length], None
        self._cache = empty_caches()

    def repeated(self, rows: int) -> EncoderDecoderReading:
        """A copy of the only text in each of `rows` rows."""
        copy = EncoderDecoderReading(self._model)
        copy._source = self._source.expand(rows, -1)
        if self._source.shape[1]:  # encode once for all rows
            copy._encoded = self._encoding().expand(rows, -1, -1)
        if self._has_begun:
            copy._cache = EncoderDecoderCache(
                *(cache.repeated(rows) for cache in both_caches(self._cache))
            )
        return copy

    def one_row(self, row: int, length: int) -> EncoderDecoderReading:
        """A copy of the first `length` tokens of one row, including the start token."""
        copy = EncoderDecoderReading(self._model)
        copy._source = self._source[row : row + 1]
        assert length > copy._source.shape[1]
        copy._encoded = self._encoding()[row : row + 1]
        own, cross = both_caches(self._cache)
        copy._cache = EncoderDecoderCache(
            own.one_row(row, length - copy._source.shape[1]),
            cross.one_row(row, cross.get_seq_length()),
        )
        return copy

    @property
    def _has_begun(self) -> bool:
        return both_caches(self._cache)[0].get_seq_length() > 0

    def _encoding(self) -> Tensor:
        if self._encoded is None:
            assert self._source.shape[1], "the start token has no source before it"
            self._encoded = self._model.get_encoder()(input_ids=self._source).last_hidden_state
        return self._encoded

    def _decoded(self, tokens: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoding()),
            decoder_input_ids=tokens,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits
        return logits

    def _nothing(self, shape: torch.Size, vocab_size: int | None = None) -> Tensor:
        size = vocab_size or int(self._model.config.vocab_size)
        nothing = torch.full((), torch.nan, dtype=self._model.dtype, device=self._model.device)
        return nothing.expand(*shape, size)


def empty_caches() -> EncoderDecoderCache:
    """Caches for the decoder's own tokens and for the source, both empty."""
    return EncoderDecoderCache(GrowingCache(), GrowingCache())


def both_caches(cache: EncoderDecoderCache) -> tuple[GrowingCache, GrowingCache]:
    """The cache of the decoder's tokens and that of the source."""
    own, cross = cache.self_attention_cache, cache.cross_attention_cache
    assert isinstance(own, GrowingCache) and isinstance(cross, GrowingCache)
    return own, cross
