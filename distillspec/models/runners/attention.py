"""Attention in half precision on a CPU, where torch's own kernel is slow.

Two replacements made of plain products: one for a single new token (decoding), one for whole rows
with a gradient (pretraining).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


@contextmanager
def fast_single_queries(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Within, `model` takes `_attend` in place of torch's kernel, if that is slow in `dtype`."""
    with _replaced(model, dtype, "distillspec-one-query", _attend):
        yield


@contextmanager
def fast_whole_rows(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Within, `model` takes `_attend_whole` in place of torch's kernel, if that is slow in `dtype`.

    For training on short rows: it keeps the weights of all pairs of positions for the gradient.
    """
    with _replaced(model, dtype, "distillspec-whole-rows", _attend_whole):
        yield


@contextmanager
def _replaced(
    model: PreTrainedModel, dtype: torch.dtype, name: str, attend: Callable[..., Any]
) -> Iterator[None]:
    before = model.config._attn_implementation
    slow = model.device.type == "cpu" and dtype != torch.float32 and before == "sdpa"
    if not slow or model.config.is_encoder_decoder:  # these add biases to attention
        yield
        return
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """One query [B, heads, 1, dim] as two plain products, which a compiler can fuse; else torch's.

    bfloat16, one row, 4 heads x 64, 512 keys: torch's kernel 0.19 ms, this 0.06, compiled 0.04.
    """
    rows, heads, queries, size = query.shape
    if queries > 1 or any(extra is not None for extra in _extras(kwargs)):
        output: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    stored = key.shape[1]  # heads of keys and values; each serves heads / stored queries
    grouped = query.view(rows, stored, heads // stored, size)
    if torch.compiler.is_compiling():
        scores = torch.matmul(grouped, key.transpose(2, 3))  # becomes one loop, with what follows
    else:
        scores = torch.matmul(key, grouped.transpose(2, 3)).transpose(2, 3)  # twice as fast so
    scores = scores * (size**-0.5 if scaling is None else scaling)
    if attention_mask is None:
        pass
    elif attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).view(rows, 1, heads, value.shape[-1]), None


def _attend_whole(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention of whole rows [B, heads, T, dim] as three plain calls; else torch's.

    bfloat16, 32 rows x 3 heads x 256 x 64, two cores: torch's kernel 15 ms forward and 47 back,
    this 10 and 16.
    """
    rows, heads, length, size = query.shape
    whole = key.shape == query.shape and attention_mask is None and not dropout
    if not whole or any(extra is not None for extra in _extras(kwargs)):
        output: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    flat = (rows * heads, length, size)
    later = torch.full((length, length), -torch.inf, dtype=value.dtype, device=value.device)
    scores = torch.baddbmm(
        later.triu_(1).expand(rows * heads, length, length),
        query.to(value.dtype).reshape(flat),
        key.to(value.dtype).reshape(flat).transpose(1, 2),
        alpha=size**-0.5 if scaling is None else scaling,
    )
    attended = torch.bmm(scores.softmax(-1, dtype=value.dtype), value.reshape(flat))
    return attended.view(query.shape).transpose(1, 2), None


def _extras(kwargs: dict[str, Any]) -> list[Any]:
    """What some models add to attention, and plain products would leave out."""
    return [kwargs.get(name) for name in ("softcap", "position_bias", "s_aux")]
