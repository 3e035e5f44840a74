"""A model as hidden states and an output head, so that a loss can project in chunks."""

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
    is_encoder_decoder,
    probe_row,
    row_logits,
    row_states,
)
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap, Pieces, token_map_of
from distillspec.models.vocabulary.trimmed_head import TrimmedHead

log = logging.getLogger(__name__)

# Whether head(hidden states) equals the model's own logits; checked once per model.
_HEAD_GIVES_LOGITS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def output_head(model: nn.Module, vocab_size: int | None = None) -> OutputHead | None:
    """The live output weights, trimmed to `vocab_size` rows, or None if they do not give the
    logits.

    The bias of a trimmed head is -inf for all tokens that it does not score.

    The result is None (use `token_logits` then) in three cases: the weights are sharded over
    processes; LoRA adapts them; or the model does more after its last layer than scale and soft
    cap. The last case is found by comparing with the model's own logits, once per model.
    """
    # 1. Find the matrix. Sharded weights and layers that do more have none.
    bare = bare_model(model)
    output = bare.get_output_embeddings()
    trimmed_head = output if isinstance(output, TrimmedHead) else None
    output = trimmed_head.whole if trimmed_head is not None else output
    if type(output) is not nn.Linear or is_sharded(bare):
        return None
    # 2. Cohere multiplies logits by a scale, Granite divides them, T5 scales hidden states.
    config = bare.config.get_text_config(decoder=True)
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    scale *= head_scale(bare)
    softcap = getattr(config, "final_logit_softcapping", None)
    bias = output.bias if trimmed_head is None else _forbidding(output, trimmed_head.kept)
    head = OutputHead(output.weight, bias, scale, float(softcap) if softcap else None)
    # 3. Compare with the model's own logits: a family may do something else.
    if bare not in _HEAD_GIVES_LOGITS:
        _HEAD_GIVES_LOGITS[bare] = _agrees(bare, head)
    if not _HEAD_GIVES_LOGITS[bare]:
        return None
    if vocab_size is None or vocab_size == output.weight.shape[0]:
        return head
    bias = None if bias is None else bias[:vocab_size]
    return head._replace(weight=output.weight[:vocab_size], bias=bias)


def _forbidding(linear: nn.Linear, kept: Tensor) -> Tensor:
    """The bias [V], -inf except for the kept tokens."""
    ruled_out = linear.weight.new_full((linear.out_features,), -torch.inf)
    allowed = ruled_out.index_fill(0, kept, 0.0)
    return allowed if linear.bias is None else allowed + linear.bias


class TreeLayout(NamedTuple):
    """Rows that are trees.

    Attributes:
        positions: Long [B, T].
        sees: Bool [B, T, T], which tokens each token sees.
    """

    positions: Tensor
    sees: Tensor


def hidden_states(
    model: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor | None,
    layout: TreeLayout | None = None,
) -> Tensor:
    """Last hidden states before the output head.

    Padding on the right needs no mask in a causal model, and attention without a mask is much
    faster. States at padded positions are undefined. A cross-tokenizer draft is also given the
    target's tokens, padded on the right only: its states are those after the last piece of each
    token. Without a mask it also reads the padding.

    Args:
        model: The model.
        tokens: Long [B, T].
        attention_mask: Bool [B, T], True for tokens, or None.
        layout: For rows that are trees, instead of the mask; the model must accept a prepared mask
            (`tree_mask.check_takes_a_tree`).

    Returns:
        Shape [B, T, H].
    """
    bare = bare_model(model)
    token_map = token_map_of(bare)
    if token_map is not None:
        assert layout is None, "the recipe has been checked"
        pieces = _pieces(bare, token_map, tokens, attention_mask)
        states = _own_states(bare, pieces.tokens, None, None)
        return torch.take_along_dim(states, pieces.last[..., None], dim=1)
    return _own_states(bare, tokens, attention_mask, layout)


def _own_states(
    model: PreTrainedModel, tokens: Tensor, is_token: Tensor | None, layout: TreeLayout | None
) -> Tensor:
    """Hidden states over the model's own tokens."""
    if is_encoder_decoder(model):
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
    layout: TreeLayout | None = None,
) -> Tensor:
    """The model's logits after each token; also works on sharded models.

    For a cross-tokenizer draft, logits over the target's vocabulary, -inf for tokens that the draft
    lacks.

    Args:
        model: The model, possibly wrapped.
        tokens: Long [B, T].
        attention_mask: Bool [B, T], True for tokens, or None.
        vocab_size: Logits are trimmed to this many tokens.
        layout: As for `hidden_states`.

    Returns:
        Shape [B, T, V].
    """
    token_map = token_map_of(bare_model(model))
    if token_map is not None:
        assert layout is None, "the recipe has been checked"
        pieces = _pieces(bare_model(model), token_map, tokens, attention_mask)
        piece_logits = model(input_ids=pieces.tokens, use_cache=False).logits
        logits = torch.take_along_dim(piece_logits, pieces.last[..., None], dim=1)
        return token_map.logits(logits)[..., :vocab_size]
    return _own_logits(model, bare_model(model), tokens, attention_mask, layout)[..., :vocab_size]


def _own_logits(
    model: nn.Module,
    bare: PreTrainedModel,
    tokens: Tensor,
    is_token: Tensor | None,
    layout: TreeLayout | None,
) -> Tensor:
    """Logits over the model's own tokens; the call goes through the wrapper of `bare`."""
    if is_encoder_decoder(bare):
        assert layout is None, "the recipe has been checked"
        return row_logits(model, bare, tokens, is_token)
    output = model(input_ids=tokens, use_cache=False, **_mask_inputs(bare, is_token, layout))
    logits: Tensor = output.logits
    return logits


def left_padded_positions(is_token: Tensor) -> Tensor:
    """bool [B, T], padding on the left -> long [B, T]: each row counts from its first token."""
    return (is_token.long().cumsum(-1) - 1).clamp_(min=0)


def _pieces(
    model: PreTrainedModel, token_map: CrossTokenizerMap, tokens: Tensor, is_token: Tensor | None
) -> Pieces:
    is_token = torch.ones_like(tokens, dtype=torch.bool) if is_token is None else is_token
    pieces = token_map.rows(tokens, is_token)
    max_tokens = max_context_length(model)
    if pieces.tokens.shape[1] > max_tokens:
        raise DistillSpecError(
            f"a row has {pieces.tokens.shape[1]} tokens in the draft's tokenizer, but its context "
            f"holds {max_tokens}",
            where=f"a row of {tokens.shape[1]} tokens in the target's tokenizer",
            fix="lower data.max_prompt_tokens or data.max_response_tokens",
        )
    return pieces


def _mask_inputs(
    model: PreTrainedModel, is_token: Tensor | None, layout: TreeLayout | None
) -> dict[str, Tensor]:
    if layout is not None:
        # torch's kernel takes a bool mask, eager attention adds its mask to the scores.
        takes_bool = model.config._attn_implementation == "sdpa"
        sees = layout.sees[:, None]
        mask = sees if takes_bool else additive_mask(sees, model.dtype)
        return {"attention_mask": mask, "position_ids": layout.positions}
    # No token follows padding, so no token sees any: attention needs no mask.
    if is_token is None or not bool((is_token[:, 1:] & ~is_token[:, :-1]).any()):
        return {}
    return {
        "attention_mask": is_token.long(),
        "position_ids": left_padded_positions(is_token),
    }


def is_sharded(model: nn.Module) -> bool:
    """Whether weights are split over processes: DTensor (FSDP2), or ZeRO-3 (attribute `ds_id`)."""
    from torch.distributed.tensor import DTensor

    return any(
        isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")
        for parameter in model.parameters()
    )


@torch.no_grad()
def _agrees(model: PreTrainedModel, head: OutputHead) -> bool:
    """Whether `head` gives the model's own logits from its hidden states, on one short row."""
    device = head.weight.device
    response = slice(None)
    if is_encoder_decoder(model):
        tokens, first = probe_row(model)
        tokens, response = tokens.to(device), slice(first, None)
    else:
        tokens = torch.arange(4, device=device)[None] % head.weight.shape[0]
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            expected = _own_logits(model, model, tokens, None, None)[0, response]
            logits = head.logits(_own_states(model, tokens, None, None)[0, response])
    finally:
        for module in was_training:
            module.training = True
    tolerance = 1e-4 if expected.dtype == torch.float32 else 3e-2
    # A trimmed head gives -inf on both sides, whose difference would be NaN.
    ruled_out = expected == -torch.inf
    actual, wanted = (values.float().masked_fill(ruled_out, 0.0) for values in (logits, expected))
    largest = float(wanted.abs().max())
    agrees = bool(((actual - wanted).abs() <= tolerance * max(largest, 1e-6)).all())
    if not agrees:
        log.info(
            "%s does more than project its hidden states: the loss uses its full logits",
            type(model).__name__,
        )
    return agrees
