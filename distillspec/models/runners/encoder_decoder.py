"""Encoder-decoder models, read as causal ones are: a text is one row of tokens.

A row is source, start token, response. The encoder reads what stands before the first start token,
the decoder all from there on, and what the decoder says of each of its tokens stands at that
token's place in the row. So prompts, masks, caches and losses are those of causal models; nothing
is ever predicted inside a source.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from distillspec.errors import DistillSpecError
from distillspec.models.runners.cache import GrowingCache


def is_seq2seq(model: PreTrainedModel) -> bool:
    """Whether an encoder reads the source."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def start_token(model: PreTrainedModel) -> int:
    """The token that every response of the decoder begins with.

    Errors: a model that names none, or one that also ends a text (BART): a row could not be split.
    """
    settings, config = model.generation_config, model.config
    found = None if settings is None else settings.decoder_start_token_id
    if found is None:
        found = getattr(config, "decoder_start_token_id", None)
    where = str(model.name_or_path or type(model).__name__)
    if found is None:
        raise DistillSpecError(
            "the encoder-decoder model does not say what its decoder begins with",
            where=where,
            fix="set decoder_start_token_id in its generation_config.json (T5: the padding token)",
        )
    ends = None if settings is None else settings.eos_token_id
    ends = getattr(config, "eos_token_id", None) if ends is None else ends
    if found == ends or (isinstance(ends, list) and found in ends):
        raise DistillSpecError(
            f"the decoder of {type(model).__name__} begins with the token that ends a text: source "
            "and response cannot be told apart",
            where=where,
            fix="take a pair whose decoder has a start token of its own, such as the T5 family",
        )
    return int(found)


def check_same_kind(target: PreTrainedModel, draft: PreTrainedModel, where: str) -> bool:
    """Whether both have an encoder; DistillSpecError where one has, or where they begin
    differently.
    """
    kinds = is_seq2seq(target), is_seq2seq(draft)
    if kinds[0] != kinds[1]:
        names = ["an encoder-decoder model" if kind else "a causal model" for kind in kinds]
        raise DistillSpecError(
            f"the target is {names[0]}, and the draft is {names[1]}",
            where=where,
            fix="take both of one kind, best of one family",
        )
    if not kinds[0]:
        return False
    starts = start_token(target), start_token(draft)
    if starts[0] != starts[1]:
        raise DistillSpecError(
            f"the target's decoder begins with token {starts[0]}, the draft's with {starts[1]}",
            where=where,
            fix="set the same decoder_start_token_id in both generation_config.json",
        )
    return True


# --- whole rows ----------------------------------------------------------------------------------


class _Parts(NamedTuple):
    """source: long [B, S], padded on the right. is_source: bool [B, S], None without padding.

    response: long [B, R], start token first, filled up with anything. first: long [B], the place of
    the start token in the row.
    """

    source: Tensor
    is_source: Tensor | None
    response: Tensor
    first: Tensor

    def in_rows(self, found: Tensor, length: int) -> Tensor:
        """What was found of each token of the response, [B, R, D], at its place: [B, length, D].

        Zeros inside the source.
        """
        places = torch.arange(length, device=found.device) - self.first[:, None]
        index = places.clamp(0, found.shape[1] - 1)[..., None]
        return torch.where(
            places[..., None] >= 0, torch.take_along_dim(found, index, dim=1), found.new_zeros(())
        )


def row_states(model: PreTrainedModel, tokens: Tensor, is_token: Tensor | None) -> Tensor:
    """The decoder's last hidden states, as the head reads them but for its scale: [B, T, H].

    tokens: long [B, T]. is_token: bool [B, T], needed where rows are padded on the left.
    """
    parts = _parts(tokens, is_token, start_token(model))
    mask = None if parts.is_source is None else parts.is_source.long()
    encoded = model.get_encoder()(input_ids=parts.source, attention_mask=mask).last_hidden_state
    states = model.get_decoder()(
        input_ids=parts.response,
        encoder_hidden_states=encoded,
        encoder_attention_mask=mask,
        use_cache=False,
    ).last_hidden_state
    return parts.in_rows(states, tokens.shape[1])


def row_logits(
    model: nn.Module, bare: PreTrainedModel, tokens: Tensor, is_token: Tensor | None
) -> Tensor:
    """The model's own logits after each token of the response: [B, T] -> [B, T, V].

    model: `bare` or what it is wrapped in; the call goes through it.
    """
    parts = _parts(tokens, is_token, start_token(bare))
    output = model(
        input_ids=parts.source,
        attention_mask=None if parts.is_source is None else parts.is_source.long(),
        decoder_input_ids=parts.response,
        use_cache=False,
    )
    return parts.in_rows(output.logits, tokens.shape[1])


def _parts(tokens: Tensor, is_token: Tensor | None, start: int) -> _Parts:
    is_start = tokens == start
    if is_token is not None:
        is_start = is_start & is_token
    first = is_start.int().argmax(-1)
    begin = torch.zeros_like(first) if is_token is None else is_token.int().argmax(-1)
    lengths = first - begin
    has_start = is_start.any(-1)
    # One wait for the device, for all that shapes depend on.
    shortest, longest, earliest, whole = torch.stack(
        [lengths.min(), lengths.max(), first.min(), has_start.all().to(first.dtype)]
    ).tolist()
    assert whole, "a row has no start token: its prompt was not made for an encoder-decoder model"
    assert shortest > 0, "a row has no source"
    last = tokens.shape[1] - 1
    columns = torch.arange(longest, device=tokens.device)
    source = tokens.gather(1, (begin[:, None] + columns).clamp(max=last))
    is_source = None if shortest == longest else columns < lengths[:, None]
    columns = torch.arange(tokens.shape[1] - earliest, device=tokens.device)
    response = tokens.gather(1, (first[:, None] + columns).clamp(max=last))
    return _Parts(source, is_source, response, first)


def head_scale(model: PreTrainedModel) -> float:
    """What hidden states are multiplied by before the output head (1 but for the first T5)."""
    config = model.config
    scaled = bool(getattr(config, "scale_decoder_outputs", False))
    return float(config.d_model) ** -0.5 if scaled else 1.0


def probe_row(model: PreTrainedModel) -> tuple[Tensor, int]:
    """A short row [1, 6] of a source and a response, and the place where that starts."""
    start = start_token(model)
    others = [token for token in range(5) if token != start]
    return torch.tensor([[*others[:2], start, *others[1:4]]]), 2


# --- one text, token by token ---------------------------------------------------------------------


class EncoderDecoderReading:
    """`models.reading.Reading` of an encoder-decoder model.

    The encoder runs once a source, when the response begins; then the decoder's cache grows.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._start = start_token(model)
        self._source = torch.empty(1, 0, dtype=torch.long, device=model.device)
        self._encoded: Tensor | None = None  # [B, S, H]
        self._cache = empty_caches()

    @property
    def rows(self) -> int:
        """Texts that are read at once."""
        return self._source.shape[0]

    def feed(self, tokens: Tensor) -> Tensor:
        """long [B, G] -> logits [B, G, V] after each of them; nan inside the source."""
        if self._has_begun:
            return self._decoded(tokens)
        starts = (tokens[0] == self._start).nonzero()
        read = int(starts[0]) if len(starts) else tokens.shape[1]
        if read:
            self._source = torch.cat([self._source, tokens[:, :read]], dim=1)
            self._encoded, self._cache = None, empty_caches()
        if not len(starts):
            self._encoding()  # reading the prompt is done, and the clock of decoding not begun
            return self._nothing(tokens.shape)
        logits = self._decoded(tokens[:, read:])
        if not read:
            return logits
        return torch.cat([self._nothing(tokens[:, :read].shape, logits.shape[-1]), logits], dim=1)

    def keep(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        source = self._source.shape[1]
        if length >= source:
            both_caches(self._cache)[0].keep(length - source)
            return
        self._source, self._encoded = self._source[:, :length], None
        self._cache = empty_caches()

    def repeated(self, rows: int) -> EncoderDecoderReading:
        """A copy of the one text held, in each of `rows` rows."""
        copy = EncoderDecoderReading(self._model)
        copy._source = self._source.expand(rows, -1)
        if self._source.shape[1]:  # once for all rows, whichever of them goes on
            copy._encoded = self._encoding().expand(rows, -1, -1)
        if self._has_begun:
            copy._cache = EncoderDecoderCache(
                *(one.repeated(rows) for one in both_caches(self._cache))
            )
        return copy

    def one_row(self, row: int, length: int) -> EncoderDecoderReading:
        """A copy of the first `length` tokens of one row, the start token among them."""
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
    return EncoderDecoderCache(GrowingCache(), GrowingCache())


def both_caches(cache: EncoderDecoderCache) -> tuple[GrowingCache, GrowingCache]:
    own, cross = cache.self_attention_cache, cache.cross_attention_cache
    assert isinstance(own, GrowingCache) and isinstance(cross, GrowingCache)
    return own, cross
