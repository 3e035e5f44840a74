"""The target's distribution, cut to its k likeliest tokens and the mass of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows, RowPlan, block_rows, spans


class TopTokens(NamedTuple):
    """p at N positions, at the temperature that it was taken at.

    The k + 1 masses need not add up to 1 exactly, since they may have been rounded: who reads them
    normalises them.
    """

    ids: Tensor
    """int32 [N, k], the likeliest tokens, likeliest first"""
    log_probability: Tensor
    """[N, k], nats"""
    log_rest: Tensor
    """[N], log of the mass of the other V - k tokens, nats; -inf where there are none"""
    vocab_size: int
    """V, over which p was normalised"""

    def of(self, rows: Tensor | None) -> TopTokens:
        """Those rows (long [M]); None: all."""
        if rows is None:
            return self
        return self._replace(
            ids=self.ids[rows],
            log_probability=self.log_probability[rows],
            log_rest=self.log_rest[rows],
        )

    def split(self, lengths: Sequence[int]) -> list[TopTokens]:
        """Rows one after another, cut into parts of these lengths, whose sum is N."""
        cuts = list(lengths)
        return [
            TopTokens(ids, values, rest, self.vocab_size)
            for ids, values, rest in zip(
                self.ids.split(cuts),
                self.log_probability.split(cuts),
                self.log_rest.split(cuts),
                strict=True,
            )
        ]

    def to(self, device: torch.device | str) -> TopTokens:
        """On that device."""
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
    """Of softmax(z / temperature), from hidden states [N, H], or logits [N, V] where head is None.

    1 <= k <= V. Logits exist for one chunk of rows at a time. The mass of the rest is summed from
    the rest itself: one minus the mass of the k would be rounding noise where it is small. A row
    with a NaN gives NaN.
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
                largest, places = p.logits.topk(k, dim=-1)
                others = p.logits.scatter(1, places, -torch.inf)
                ids[block] = places.to(torch.int32)
                log_probability[block] = largest - p.log_partition.unsqueeze(-1)
                log_rest[block] = others.logsumexp(-1) - p.log_partition
    return TopTokens(ids, log_probability, log_rest, vocab_size)
