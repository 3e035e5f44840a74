"""Batched sampling of whole responses: rollout of the draft, stored responses of the target.

Exactly the model's law: each token is drawn from `SamplingPolicy.distribution` of its own row.
Fast by what it leaves out: prompts are read with little padding, finished rows leave the batch, the
cache is written in place, masks are cut from one, or not made where all rows are equally long.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from distillspec.models.attention import fast_single_queries
from distillspec.models.cache import (
    GrowingCache,
    additive_mask,
    check_rolls_back,
    is_plainly_causal,
)
from distillspec.models.hidden import causal_model, is_sharded, left_padded_positions
from distillspec.speculation.chance import Chance
from distillspec.speculation.sampling import SamplingPolicy

# Rows are looked through for their ends every so many tokens: on a GPU each look is a wait.
_TOKENS_BETWEEN_LOOKS = {"cpu": 1}
_TOKENS_BETWEEN_LOOKS_ELSEWHERE = 8
# Prompts are read this many tokens at a time, padding included: enough to keep the device busy.
_TOKENS_READ_AT_ONCE = {"cpu": 2048}
_TOKENS_READ_AT_ONCE_ELSEWHERE = 32768
# Finished rows leave once they are this share of the batch: leaving costs a pass over the cache.
_DONE_SHARE = 0.125


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int,
    policy: SamplingPolicy,
    chance: Chance,
    end_tokens: frozenset[int],
    pad_token: int,
    batch_rows: int = 64,
    vocabulary: int | None = None,
) -> list[Tensor]:
    """Draw one response per prompt, in the given order: long [t] each, end token included, CPU.

    model: a causal model, plain or with LoRA adapters (unwrap DDP first). It runs in eval mode and
    is left in the modes it was in. Under autocast its weights are cast once, not once a step.
    vocabulary: logits are trimmed to this many tokens.
    """
    assert all(len(prompt) for prompt in prompts), "an empty prompt has no next token"
    assert max_new_tokens >= 1
    causal = causal_model(model)
    check_rolls_back(causal)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    groups = [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]
    responses: list[Tensor] = [torch.empty(0, dtype=torch.long)] * len(prompts)
    with _eval_mode(model), _forward_of(model) as forward:
        sampler = _Sampler(forward, policy, chance, end_tokens, pad_token, vocabulary)
        for group in groups:
            drawn = sampler.sample([prompts[index] for index in group], max_new_tokens)
            for index, response in zip(group, drawn, strict=True):
                responses[index] = response
    return responses


class _Sampler:
    """Draws the responses of one batch of prompts after another."""

    def __init__(
        self,
        forward: _Forward,
        policy: SamplingPolicy,
        chance: Chance,
        end_tokens: frozenset[int],
        pad_token: int,
        vocabulary: int | None,
    ) -> None:
        self._forward = forward
        self._policy = policy
        self._chance = chance
        self._ends = torch.tensor(sorted(end_tokens), dtype=torch.long, device=forward.device)
        self._pad_token = pad_token
        self._vocabulary = vocabulary
        self._between_looks = _TOKENS_BETWEEN_LOOKS.get(
            forward.device.type, _TOKENS_BETWEEN_LOOKS_ELSEWHERE
        )

    def sample(self, prompts: list[Tensor], max_new_tokens: int) -> list[Tensor]:
        """One batch, sorted by length."""
        batch = _Batch(prompts, max_new_tokens, self._forward)
        device = self._forward.device
        drawn = torch.full((len(prompts), max_new_tokens), self._pad_token, device=device)
        rows = torch.arange(len(prompts), device=device)
        done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        for step in range(max_new_tokens):
            logits = batch.next_logits()[:, : self._vocabulary]
            tokens = self._policy.draw(logits, self._chance)
            drawn[rows, step] = tokens
            done |= torch.isin(tokens, self._ends)
            batch.append(tokens)
            if (step + 1) % self._between_looks:
                continue
            left = len(rows) - int(done.sum())
            if not left:
                break
            if left <= len(rows) * (1 - _DONE_SHARE):
                kept = (~done).nonzero()[:, 0]
                rows, done = rows[kept], done[kept]
                batch.keep_rows(kept)
        return self._cut_at_ends(drawn.cpu())

    def _cut_at_ends(self, drawn: Tensor) -> list[Tensor]:
        is_end = torch.isin(drawn, self._ends.cpu())
        ended = is_end.any(-1)
        length = torch.where(ended, is_end.int().argmax(-1) + 1, drawn.shape[1])
        return [row[:n].clone() for row, n in zip(drawn, length.tolist(), strict=True)]


class _Batch:
    """Rows that are being continued: what the model has read of them, and what it reads next.

    The cache is padded on the left, so that all rows grow at one place. Prompts are read but for
    their last token, some rows at a time: rows of like length with padding on the right, which
    costs little and needs no mask; what was read is then moved to the right end.
    """

    def __init__(self, prompts: list[Tensor], max_new_tokens: int, forward: _Forward) -> None:
        self._forward = forward
        prompts = [prompt.to(forward.device) for prompt in prompts]
        self._input = torch.stack([prompt[-1] for prompt in prompts])[:, None]
        lengths = [len(prompt) - 1 for prompt in prompts]
        self._length = max(lengths)
        self._mask: Tensor | None = None
        self._positions: Tensor | None = None
        columns = torch.arange(self._length + max_new_tokens, device=forward.device)
        first = torch.tensor([self._length - length for length in lengths], device=forward.device)
        if min(lengths) < self._length:
            visible = columns >= first[:, None]
            self._positions = left_padded_positions(visible)
            self._mask = (
                additive_mask(visible, forward.dtype)[:, None, None]
                if forward.takes_ready_mask
                else visible.long()
            )
        texts = [prompt[:-1] for prompt in prompts]
        groups = _groups(lengths, forward.tokens_at_once)
        self._cache = self._read(texts, groups, len(columns))

    def next_logits(self) -> Tensor:
        """[B, V] after the last token of each row."""
        self._length += 1
        mask = positions = None
        if self._mask is not None and self._positions is not None:
            mask = self._mask[..., : self._length]
            positions = self._positions[:, self._length - 1 : self._length]
        return self._forward(self._input, self._cache, mask, positions)

    def append(self, tokens: Tensor) -> None:
        """One more token for each row, long [B]."""
        self._input = tokens[:, None]

    def keep_rows(self, rows: Tensor) -> None:
        """Go on with these rows only, long [B']."""
        self._cache.keep_rows(rows)
        self._input = self._input[rows]
        if self._mask is not None and self._positions is not None:
            self._mask, self._positions = self._mask[rows], self._positions[rows]

    def _read(
        self, texts: list[Tensor], groups: Iterable[list[int]], capacity: int
    ) -> GrowingCache:
        """A cache with room for `capacity` tokens, that ends with each row's text."""
        buffers: list[tuple[Tensor, Tensor]] = []
        for group in groups:
            tokens = pad_sequence([texts[row] for row in group], batch_first=True)
            cache = GrowingCache()
            self._forward(tokens, cache, None, None)
            if not buffers:
                buffers = [
                    (_room(keys, len(texts), capacity), _room(values, len(texts), capacity))
                    for keys, values in ((layer.keys, layer.values) for layer in cache.layers)
                ]
            for layer, pair in zip(cache.layers, buffers, strict=True):
                for read, buffer in zip((layer.keys, layer.values), pair, strict=True):
                    for place, row in enumerate(group):
                        length = len(texts[row])
                        end = self._length
                        buffer[row, :, end - length : end] = read[place, :, :length]
        return GrowingCache.of(buffers, self._length)


def _groups(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Rows with any text, of ascending lengths, in groups of at most `tokens`, padding included."""
    group: list[int] = []
    for row, length in enumerate(lengths):
        if length == 0:
            continue
        if group and (len(group) + 1) * length > tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _room(states: Tensor, rows: int, capacity: int) -> Tensor:
    """Zeros [rows, heads, capacity, dim] for states like [B, heads, T, dim]."""
    return states.new_zeros(rows, states.shape[1], capacity, states.shape[3])


class _Forward(NamedTuple):
    """The model as a function of tokens, cache, mask and positions; logits of the last position."""

    model: nn.Module
    weights: dict[str, Tensor] | None
    keeps_last: bool
    takes_ready_mask: bool
    tokens_at_once: int
    device: torch.device
    dtype: torch.dtype

    def __call__(
        self, tokens: Tensor, cache: GrowingCache, mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """long [B, T] -> [B, V]."""
        inputs: dict[str, Any] = {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
        }
        if self.keeps_last:
            inputs["logits_to_keep"] = 1
        if self.weights is None:
            output = self.model(**inputs)
        else:
            output = functional_call(self.model, self.weights, kwargs=inputs)
        logits: Tensor = output.logits
        return logits[:, -1]


@contextmanager
def _forward_of(model: nn.Module) -> Iterator[_Forward]:
    causal = causal_model(model)
    device = causal.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else causal.dtype
    weights = None
    if autocast and not is_sharded(causal):
        weights = {name: weight.to(dtype) for name, weight in model.named_parameters()}
    signature = inspect.signature(causal.forward).parameters
    takes_ready_mask = is_plainly_causal(causal)
    with (
        torch.autocast(device.type, dtype=dtype, enabled=autocast and weights is None),
        fast_single_queries(causal, dtype),
    ):
        yield _Forward(
            model=model,
            weights=weights,
            keeps_last="logits_to_keep" in signature,
            takes_ready_mask=takes_ready_mask,
            tokens_at_once=_TOKENS_READ_AT_ONCE.get(device.type, _TOKENS_READ_AT_ONCE_ELSEWHERE),
            device=device,
            dtype=dtype,
        )


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True
