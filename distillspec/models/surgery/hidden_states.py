"""A model as hidden states and an output head, so that a loss can project chunk by chunk."""

from __future__ import annotations

import logging
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distillspec.divergence.head import OutputHead
from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.runners.cache import additive_mask
from distillspec.models.runners.eager import max_context_length
from distillspec.models.runners.encoder_decoder import (
    head_scale,
    is_seq2seq,
    probe_row,
    row_logits,
    row_states,
)
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap, Pieces, bridge_of
from distillspec.models.vocabulary.trimmed_head import TrimmedHead

log = logging.getLogger(__name__)

# Whether head(hidden states) was found to be the model's own logits; asked once per model.
_HEAD_IS_WHOLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def output_head(model: nn.Module, vocab_size: int | None = None) -> OutputHead | None:
    """The live output weights, trimmed to `vocab_size` rows, or None if they are not all there is.

    Of a head that scores a part of the vocabulary, the bias is -inf for all other tokens.

    None (the caller then takes `token_logits`) when the weights are sharded over processes, adapted
    by LoRA, or when scale and soft cap do not account for what the model does after its last layer:
    that is found out by comparing with the model's own logits, once per model.
    """
    bare = bare_model(model)
    linear = bare.get_output_embeddings()
    trimmed = linear if isinstance(linear, TrimmedHead) else None
    linear = trimmed.whole if trimmed is not None else linear
    if type(linear) is not nn.Linear or is_sharded(bare):
        return None
    config = bare.config.get_text_config(decoder=True)
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    scale *= head_scale(bare)
    softcap = getattr(config, "final_logit_softcapping", None)
    bias = linear.bias if trimmed is None else _forbidding(linear, trimmed.kept)
    whole = OutputHead(linear.weight, bias, scale, float(softcap) if softcap else None)
    if bare not in _HEAD_IS_WHOLE:
        _HEAD_IS_WHOLE[bare] = _agrees(bare, whole)
    if not _HEAD_IS_WHOLE[bare]:
        return None
    if vocab_size is None or vocab_size == linear.weight.shape[0]:
        return whole
    bias = None if bias is None else bias[:vocab_size]
    return whole._replace(weight=linear.weight[:vocab_size], bias=bias)


def _forbidding(linear: nn.Linear, kept: Tensor) -> Tensor:
    """The bias [V], -inf but for the kept tokens."""
    none = linear.weight.new_full((linear.out_features,), -torch.inf)
    allowed = none.index_fill(0, kept, 0.0)
    return allowed if linear.bias is None else allowed + linear.bias


class Layout(NamedTuple):
    """Rows that are trees. positions: long [B, T]. sees: bool [B, T, T], whom each token sees."""

    positions: Tensor
    sees: Tensor


def hidden_states(
    model: nn.Module, tokens: Tensor, attention_mask: Tensor | None, layout: Layout | None = None
) -> Tensor:
    """Last hidden states, as the head reads them: long [B, T], bool [B, T] (token) -> [B, T, H].

    layout: of rows that are trees, in place of the mask; the model must take one of ours
    (`tree_mask.check_takes_a_tree`).

    Padding on the right needs no mask in a causal model: its kernels then know the shape of the
    attention and are much faster. What stands at padded positions is undefined. A draft with a
    tokenizer of its own is given the target's tokens, too, padded on the right alone: its states
    are those after the last piece of each. Without a mask it reads padding, too, as many pieces.
    """
    bare = bare_model(model)
    bridge = bridge_of(bare)
    if bridge is not None:
        assert layout is None, "the recipe has been checked"
        pieces = _pieces(bare, bridge, tokens, attention_mask)
        read = _own_states(bare, pieces.tokens, None, None)
        return torch.take_along_dim(read, pieces.last[..., None], dim=1)
    return _own_states(bare, tokens, attention_mask, layout)


def _own_states(
    model: PreTrainedModel, tokens: Tensor, is_token: Tensor | None, layout: Layout | None
) -> Tensor:
    """Of the model's own tokens."""
    if is_seq2seq(model):
        assert layout is None, "the recipe has been checked"
        return row_states(model, tokens, is_token)
    inputs = _mask_inputs(model, is_token, layout)
    output = model.base_model(input_ids=tokens, use_cache=False, **inputs)
    states: Tensor = output.last_hidden_state
    return states


def token_logits(
    model: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor | None,
    vocab_size: int | None = None,
    layout: Layout | None = None,
) -> Tensor:
    """The model's own logits after each token: [B, T] -> [B, T, V]; works on sharded models too.

    Of a draft with a vocabulary of its own, over the target's, -inf for what it has not.
    """
    bridge = bridge_of(bare_model(model))
    if bridge is not None:
        assert layout is None, "the recipe has been checked"
        pieces = _pieces(bare_model(model), bridge, tokens, attention_mask)
        whole = model(input_ids=pieces.tokens, use_cache=False).logits
        own = torch.take_along_dim(whole, pieces.last[..., None], dim=1)
        return bridge.logits(own)[..., :vocab_size]
    return _own_logits(model, bare_model(model), tokens, attention_mask, layout)[..., :vocab_size]


def _own_logits(
    model: nn.Module,
    bare: PreTrainedModel,
    tokens: Tensor,
    is_token: Tensor | None,
    layout: Layout | None,
) -> Tensor:
    """Of the model's own tokens; the call goes through what `bare` is wrapped in."""
    if is_seq2seq(bare):
        assert layout is None, "the recipe has been checked"
        return row_logits(model, bare, tokens, is_token)
    output = model(input_ids=tokens, use_cache=False, **_mask_inputs(bare, is_token, layout))
    logits: Tensor = output.logits
    return logits


def left_padded_positions(is_token: Tensor) -> Tensor:
    """bool [B, T], padding on the left -> long [B, T]: each row counts from its first token."""
    return (is_token.long().cumsum(-1) - 1).clamp_(min=0)


def _pieces(
    model: PreTrainedModel, bridge: CrossTokenizerMap, tokens: Tensor, is_token: Tensor | None
) -> Pieces:
    is_token = torch.ones_like(tokens, dtype=torch.bool) if is_token is None else is_token
    pieces = bridge.rows(tokens, is_token)
    holds = max_context_length(model)
    if pieces.tokens.shape[1] > holds:
        raise DistillSpecError(
            f"a row has {pieces.tokens.shape[1]} tokens of the draft's, its context holds {holds}",
            where=f"a row of {tokens.shape[1]} tokens of the target's",
            fix="lower data.max_prompt_tokens or data.max_response_tokens",
        )
    return pieces


def _mask_inputs(
    model: PreTrainedModel, is_token: Tensor | None, layout: Layout | None
) -> dict[str, Tensor]:
    if layout is not None:
        takes_bool = model.config._attn_implementation == "sdpa"
        sees = layout.sees[:, None]
        mask = sees if takes_bool else additive_mask(sees, model.dtype)
        return {"attention_mask": mask, "position_ids": layout.positions}
    if is_token is None or not bool((is_token[:, 1:] & ~is_token[:, :-1]).any()):
        return {}
    return {
        "attention_mask": is_token.long(),
        "position_ids": left_padded_positions(is_token),
    }


def is_sharded(model: nn.Module) -> bool:
    """Weights split over processes: DTensor (FSDP2), or DeepSpeed's ZeRO-3 (marks them `ds_id`)."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in model.parameters())


@torch.no_grad()
def _agrees(model: PreTrainedModel, head: OutputHead) -> bool:
    """Whether `head` makes the model's own logits of its hidden states, on one short row."""
    device = head.weight.device
    spoken = slice(None)
    if is_seq2seq(model):
        tokens, first = probe_row(model)
        tokens, spoken = tokens.to(device), slice(first, None)
    else:
        tokens = torch.arange(4, device=device)[None] % head.weight.shape[0]
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            expected = _own_logits(model, model, tokens, None, None)[0, spoken]
            logits = head.logits(_own_states(model, tokens, None, None)[0, spoken])
    finally:
        for module in was_training:
            module.training = True
    tolerance = 1e-4 if expected.dtype == torch.float32 else 3e-2
    ruled_out = expected == -torch.inf
    found, wanted = (z.float().masked_fill(ruled_out, 0.0) for z in (logits, expected))
    size = float(wanted.abs().max())
    agrees = bool(((found - wanted).abs() <= tolerance * max(size, 1e-6)).all())
    if not agrees:
        log.info(
            "%s does more than project its hidden states: the loss uses its whole logits",
            type(model).__name__,
        )
    return agrees
