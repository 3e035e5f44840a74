"""Batched sampling of responses: rollouts of the draft, stored responses of the target.

The responses have exactly the model's distribution: each token is drawn from
`SamplingPolicy.distribution` of its row. The sampler is fast because it avoids work: prompts are
read with little padding, finished rows leave the batch, and the cache is updated in place. Masks
are slices of one mask, and rows of equal length need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillspec.models.bare import bare_model, describe_model
from distillspec.models.runners.cache import additive_mask, check_rolls_back
from distillspec.models.runners.encoder_decoder import is_encoder_decoder
from distillspec.models.sampling.encoder_decoder import EncoderDecoderBatch
from distillspec.models.sampling.forward import Forward, forward_of, read_prompts
from distillspec.models.surgery.hidden_states import left_padded_positions
from distillspec.speculation.random_source import RandomSource, for_rows
from distillspec.speculation.sampling import DrawnToken, SamplingPolicy, check_finite

# The sampler looks for finished rows every so many tokens: on a GPU each look waits for the device.
_TOKENS_BETWEEN_LOOKS = {"cpu": 1}
_TOKENS_BETWEEN_LOOKS_ELSEWHERE = 8
# Finished rows leave when they are this share of the batch: removing rows copies the cache.
_DONE_SHARE = 0.125


class ResponseWriter(NamedTuple):
    """One of several models that write a text together, and the share of tokens it writes."""

    model: nn.Module
    share: float


@torch.no_grad()
def generate(
    model: nn.Module | Sequence[ResponseWriter],
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int,
    policy: SamplingPolicy,
    random_source: RandomSource,
    eos_token_ids: frozenset[int],
    pad_token: int,
    batch_rows: int = 64,
    vocab_size: int | None = None,
) -> list[Tensor]:
    """Draw one response per prompt, in the order of the prompts.

    Models run in eval mode, and their modes are restored. Under autocast, weights are cast once,
    not once per step.

    Args:
        model: A causal or encoder-decoder model, plain or with LoRA adapters (unwrap DDP first).
            With several models on one device, a random choice per token and row selects the model
            that draws it.
        prompts: Long [t] each, not empty.
        max_new_tokens: Tokens of the longest response, at least 1.
        policy: Temperature and truncation of the distribution.
        random_source: One stream for all rows, or a `RowSource` with a stream per row.
        eos_token_ids: Tokens that end a response.
        pad_token: Any token of the vocabulary.
        batch_rows: Rows of the largest batch.
        vocab_size: Logits are trimmed to this many tokens.

    Returns:
        Long [t] each, on the CPU, including the end token.
    """
    assert all(len(prompt) for prompt in prompts), "an empty prompt has no next token"
    assert max_new_tokens >= 1
    writers = [ResponseWriter(model, 1.0)] if isinstance(model, nn.Module) else list(model)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    groups = [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]
    responses: list[Tensor] = [torch.empty(0, dtype=torch.long)] * len(prompts)
    with ExitStack() as stack:
        forwards = []
        for writer in writers:
            check_rolls_back(bare_model(writer.model))
            forwards.append(stack.enter_context(forward_of(writer.model)))
        shares = [writer.share for writer in writers]
        sampler = _Sampler(
            forwards, shares, policy, random_source, eos_token_ids, pad_token, vocab_size
        )
        for group in groups:
            drawn = sampler.sample([prompts[index] for index in group], max_new_tokens, group)
            for index, response in zip(group, drawn, strict=True):
                responses[index] = response
    return responses


class _Sampler:
    """Draws the responses of one batch of prompts after another."""

    def __init__(
        self,
        forwards: Sequence[Forward],
        shares: Sequence[float],
        policy: SamplingPolicy,
        random_source: RandomSource,
        eos_token_ids: frozenset[int],
        pad_token: int,
        vocab_size: int | None,
    ) -> None:
        self._forwards = forwards
        self._device = forwards[0].device
        self._shares = torch.tensor(shares, device=self._device)
        self._policy = policy
        self._random_source = random_source
        self._ends = torch.tensor(sorted(eos_token_ids), dtype=torch.long, device=self._device)
        self._pad_token = pad_token
        self._vocab_size = vocab_size
        self._between_looks = _TOKENS_BETWEEN_LOOKS.get(
            self._device.type, _TOKENS_BETWEEN_LOOKS_ELSEWHERE
        )

    def sample(
        self, prompts: list[Tensor], max_new_tokens: int, indices: list[int]
    ) -> list[Tensor]:
        """Responses of one batch, sorted by length.

        Args:
            prompts: Long [t] each.
            max_new_tokens: Tokens of the longest response.
            indices: Index of each prompt among all prompts.
        """
        random_source = for_rows(self._random_source, torch.tensor(indices))
        batches = [_begun(prompts, max_new_tokens, forward) for forward in self._forwards]
        device = self._device
        drawn = torch.full((len(prompts), max_new_tokens), self._pad_token, device=device)
        rows = torch.arange(len(prompts), device=device)
        done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        doubts = torch.zeros((), device=device)
        for step in range(max_new_tokens):
            # 1. One token per row. Finished rows go on until they leave; the excess is cut.
            tokens, doubt = self._next_tokens(batches, len(rows), random_source)
            # A sum keeps a NaN of any step: it is read once, at the end.
            doubts = doubts + doubt.sum()
            drawn[rows, step] = tokens
            done |= torch.isin(tokens, self._ends)
            for batch in batches:
                batch.append(tokens)
            # 2. Let finished rows leave, if they are many.
            if (step + 1) % self._between_looks:
                continue
            left = len(rows) - int(done.sum())
            if not left:
                break
            if left <= len(rows) * (1 - _DONE_SHARE):
                unfinished = (~done).nonzero()[:, 0]
                rows, done = rows[unfinished], done[unfinished]
                random_source = for_rows(random_source, unfinished)
                for batch in batches:
                    batch.keep_rows(unfinished)
        check_finite(
            " or ".join(describe_model(forward.model) for forward in self._forwards), doubts
        )
        return cut_at_ends(drawn.cpu(), self._ends.cpu())

    def _next_tokens(
        self,
        batches: Sequence[_Batch | EncoderDecoderBatch],
        rows: int,
        random_source: RandomSource,
    ) -> DrawnToken:
        """long [rows], each drawn by the model whose turn it is in that row."""
        # Each model reads every token, so that it can write the next one of any row.
        distributions = [batch.next_logits()[:, : self._vocab_size] for batch in batches]
        if len(distributions) == 1:
            return self._policy.draw_with_doubt(distributions[0], random_source)
        turns = random_source.draw(self._shares.expand(rows, -1))
        of_writers = torch.stack(distributions)[turns, torch.arange(rows, device=self._device)]
        return self._policy.draw_with_doubt(of_writers, random_source)


def _begun(
    prompts: list[Tensor], max_new_tokens: int, forward: Forward
) -> _Batch | EncoderDecoderBatch:
    is_answer = is_encoder_decoder(bare_model(forward.model))
    return (EncoderDecoderBatch if is_answer else _Batch)(prompts, max_new_tokens, forward)


def cut_at_ends(drawn: Tensor, ends: Tensor) -> list[Tensor]:
    """Cut each row after its first end token.

    Args:
        drawn: Long [B, T].
        ends: The tokens that end a text.
    """
    is_end = torch.isin(drawn, ends)
    ended = is_end.any(-1)
    length = torch.where(ended, is_end.int().argmax(-1) + 1, drawn.shape[1])
    return [row[:n].clone() for row, n in zip(drawn, length.tolist(), strict=True)]


class _Batch:
    """Rows that are being continued: their cache and the next input.

    The cache is padded on the left, so that all rows grow at the same column.
    """

    def __init__(self, prompts: list[Tensor], max_new_tokens: int, forward: Forward) -> None:
        self._forward = forward
        prompts = [prompt.to(forward.device) for prompt in prompts]
        # The last token is the first input, so the cache holds the tokens before it.
        self._input = torch.stack([prompt[-1] for prompt in prompts])[:, None]
        lengths = [len(prompt) - 1 for prompt in prompts]
        self._length = max(lengths)
        self._mask: Tensor | None = None
        self._positions: Tensor | None = None
        if min(lengths) < self._length:
            columns = torch.arange(self._length + max_new_tokens, device=forward.device)
            first = self._length - torch.tensor(lengths, device=forward.device)
            visible = columns >= first[:, None]
            self._positions = left_padded_positions(visible)
            self._mask = (
                additive_mask(visible, forward.dtype)[:, None, None]
                if forward.takes_ready_mask
                else visible.long()
            )
        self._cache = read_prompts(forward, [prompt[:-1] for prompt in prompts], max_new_tokens)

    def next_logits(self) -> Tensor:
        """[B, V] after the last token of each row."""
        self._length += 1
        mask = positions = None
        if self._mask is not None and self._positions is not None:
            mask = self._mask[..., : self._length]
            positions = self._positions[:, self._length - 1 : self._length]
        return self._forward(self._input, self._cache, mask, positions)

    def append(self, tokens: Tensor) -> None:
        """Add one token to each row, long [B]."""
        self._input = tokens[:, None]

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows, long [B']."""
        self._cache.keep_rows(rows)
        self._input = self._input[rows]
        if self._mask is not None and self._positions is not None:
            self._mask, self._positions = self._mask[rows], self._positions[rows]


class DrawnText(NamedTuple):
    """A prompt, not empty, and the response that the target drew after it, as token ids."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
