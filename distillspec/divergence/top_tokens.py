"""The target's distribution as its k most probable tokens and the mass of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows, RowPlan, block_rows, spans


class TopTokens(NamedTuple):
    """p at N positions, at the temperature of `top_tokens`.

    The cache may have rounded the k + 1 masses, so they may not add up to exactly 1. The reader
    normalises them.

    Attributes:
        ids: The k most probable tokens in falling order, int32 [N, k].
        log_probability: Their log-probabilities, [N, k], nats.
        log_rest: Log of the mass of the V - k remaining tokens, [N], nats; -inf if k = V.
        vocab_size: V, the number of tokens over which p is normalised.
    """

    ids: Tensor
    log_probability: Tensor
    log_rest: Tensor
    vocab_size: int

    def of(self, rows: Tensor | None) -> TopTokens:
        """The given rows, long [M]; all if None."""
        if rows is None:
            return self
        return self._replace(
            ids=self.ids[rows],
            log_probability=self.log_probability[rows],
            log_rest=self.log_rest[rows],
        )

    def split(self, lengths: Sequence[int]) -> list[TopTokens]:
        """Cut the rows into consecutive parts of these lengths, whose sum is N."""
        sizes = list(lengths)
        return [
            TopTokens(ids, values, rest, self.vocab_size)
            for ids, values, rest in zip(
                self.ids.split(sizes),
                self.log_probability.split(sizes),
                self.log_rest.split(sizes),
                strict=True,
            )
        ]

    def to(self, device: torch.device | str) -> TopTokens:
        """The same rows on `device`."""
        return TopTokens(
            self.ids.to(device),
            self.log_probability.to(device),
            self.log_rest.to(device),
            self.vocab_size,
        )


@torch.no_grad()
def top_tokens(
    target: Tensor, head: OutputHead | None, *, k: int, temperature: float, chunk_tokens: int
) -> TopTokens:
    """The most probable tokens of softmax(logits / temperature).

    Logits exist for one chunk of rows at a time. The mass of the rest is the sum over its tokens:
    one minus the mass of the k tokens would be rounding noise if it is small. A row with a NaN
    gives NaN.

    Args:
        target: Hidden states [N, H], or logits [N, V] if there is no head.
        head: Output head of the hidden states.
        k: Tokens to keep per row, in [1, V].
        temperature: Divides the logits.
        chunk_tokens: Rows of one chunk.
    """
    plan = RowPlan.even(temperature, chunk_tokens, target)
    rows = plan.logits(ModelRows(target, head))
    with torch.autocast(target.device.type, enabled=False):
        count, vocab_size = target.shape[0], rows.vocab_size
        assert 1 <= k <= vocab_size
        ids = torch.empty(count, k, dtype=torch.int32, device=target.device)
        log_probability = plan.weights.new_empty(count, k)
        log_rest = plan.weights.new_empty(count)
        for chunk in spans(0, count, chunk_tokens):
            rows.load(chunk)
            for block in spans(chunk.start, chunk.stop, block_rows(vocab_size, target.device)):
                p = rows.distribution(block)
                largest, tokens = p.logits.topk(k, dim=-1)
                # Not in place: p.logits may be the caller's own tensor.
                rest = p.logits.scatter(1, tokens, -torch.inf)
                ids[block] = tokens.to(torch.int32)
                log_probability[block] = largest - p.log_partition.unsqueeze(-1)
                log_rest[block] = rest.logsumexp(-1) - p.log_partition
    return TopTokens(ids, log_probability, log_rest, vocab_size)
