"""Encoder-decoder models behind the interface of causal models: a text is one row of tokens.

A row is source, start token, response. The encoder reads the tokens before the first start token.
The decoder reads the remaining tokens. Its output for each token stands at that token's position in
the row. So prompts, masks, caches and losses are those of causal models. The model never predicts
inside a source.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError


def is_encoder_decoder(model: PreTrainedModel) -> bool:
    """Whether the model has an encoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def start_token(model: PreTrainedModel) -> int:
    """The token that every response of the decoder starts with.

    Raises:
        DistillSpecError: The model names no start token, or one that also ends a text (BART): a row
            could not be split.
    """
    settings, config = model.generation_config, model.config
    start = None if settings is None else settings.decoder_start_token_id
    if start is None:
        start = getattr(config, "decoder_start_token_id", None)
    where = str(model.name_or_path or type(model).__name__)
    if start is None:
        raise DistillSpecError(
            "the encoder-decoder model has no decoder_start_token_id",
            where=where,
            fix="set decoder_start_token_id in its generation_config.json (T5: the padding token)",
        )
    ends = None if settings is None else settings.eos_token_id
    ends = getattr(config, "eos_token_id", None) if ends is None else ends
    if start == ends or (isinstance(ends, list) and start in ends):
        raise DistillSpecError(
            f"the decoder of {type(model).__name__} starts with the end-of-text token ({start}): "
            "source and response cannot be separated",
            where=where,
            fix="use a pair whose decoder has a separate start token, such as the T5 family",
        )
    return int(start)


def check_same_kind(target: PreTrainedModel, draft: PreTrainedModel, where: str) -> bool:
    """Whether both models have an encoder.

    Raises:
        DistillSpecError: Only one model has an encoder, or the start tokens differ.
    """
    has_encoder = is_encoder_decoder(target), is_encoder_decoder(draft)
    if has_encoder[0] != has_encoder[1]:
        names = ["an encoder-decoder model" if value else "a causal model" for value in has_encoder]
        raise DistillSpecError(
            f"the target is {names[0]}, and the draft is {names[1]}",
            where=where,
            fix="use two models of one kind, preferably of one family",
        )
    if not has_encoder[0]:
        return False
    starts = start_token(target), start_token(draft)
    if starts[0] != starts[1]:
        raise DistillSpecError(
            f"the target's decoder starts with token {starts[0]}, the draft's with {starts[1]}",
            where=where,
            fix="set the same decoder_start_token_id in both generation_config.json",
        )
    return True


class _Parts(NamedTuple):
    """Rows split at their start token.

    Attributes:
        source: Long [B, S], padded on the right.
        is_source: Bool [B, S], None without padding.
        response: Long [B, R], start token first, padded with any token.
        first: Long [B], position of the start token in the row.
    """

    source: Tensor
    is_source: Tensor | None
    response: Tensor
    first: Tensor

    def in_rows(self, values: Tensor, length: int) -> Tensor:
        """Values of the response tokens, [B, R, D], at their positions in the row: [B, length, D].

        Zeros inside the source.
        """
        positions = torch.arange(length, device=values.device) - self.first[:, None]
        # Positions inside the source read an arbitrary state here; `where` zeroes them.
        index = positions.clamp(0, values.shape[1] - 1)[..., None]
        return torch.where(
            positions[..., None] >= 0,
            torch.take_along_dim(values, index, dim=1),
            values.new_zeros(()),
        )


def row_states(model: PreTrainedModel, tokens: Tensor, is_token: Tensor | None) -> Tensor:
    """The decoder's last hidden states, as the head reads them before its scale.

    Args:
        model: The encoder-decoder model.
        tokens: Long [B, T].
        is_token: Bool [B, T], needed if rows are padded on the left.

    Returns:
        Shape [B, T, H].
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
    """The model's logits after each token of the response.

    Args:
        model: `bare` or its wrapper; the call goes through the wrapper.
        bare: The transformers model.
        tokens: Long [B, T].
        is_token: Bool [B, T], needed if rows are padded on the left.

    Returns:
        Shape [B, T, V].
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
    # 1. Where source and response begin: argmax gives the first 1.
    first = is_start.int().argmax(-1)
    begin = torch.zeros_like(first) if is_token is None else is_token.int().argmax(-1)
    lengths = first - begin
    has_start = is_start.any(-1)
    # One transfer from the device for all values that shapes depend on.
    shortest, longest, earliest, complete = torch.stack(
        [lengths.min(), lengths.max(), first.min(), has_start.all().to(first.dtype)]
    ).tolist()
    assert complete, "a row has no start token: its prompt is not for an encoder-decoder model"
    assert shortest > 0, "a row has no source"
    # 2. Both parts, each from its own first column. Columns past a part read any token of
    #    the row: a mask hides them in the source, and `in_rows` drops them in the response.
    last = tokens.shape[1] - 1
    columns = torch.arange(longest, device=tokens.device)
    source = tokens.gather(1, (begin[:, None] + columns).clamp(max=last))
    is_source = None if shortest == longest else columns < lengths[:, None]
    columns = torch.arange(tokens.shape[1] - earliest, device=tokens.device)
    response = tokens.gather(1, (first[:, None] + columns).clamp(max=last))
    return _Parts(source, is_source, response, first)


def head_scale(model: PreTrainedModel) -> float:
    """The factor on hidden states before the output head (1 except for the first T5)."""
    config = model.config
    scaled = bool(getattr(config, "scale_decoder_outputs", False))
    return float(config.d_model) ** -0.5 if scaled else 1.0


def probe_row(model: PreTrainedModel) -> tuple[Tensor, int]:
    """A short row [1, 6] of source and response, and the position where the response starts."""
    start = start_token(model)
    tokens = [token for token in range(5) if token != start]
    return torch.tensor([[*tokens[:2], start, *tokens[1:4]]]), 2
