"""Rows of speculative decoding as trees: the text, and the drafts that were rejected on its way.

A round of speculative decoding drafts G tokens whatever happens to them; its i-th state, the text
and i drafted tokens, is reached with probability prod_{j <= i} min(1, p_j/q_j). Text is what the
coins made of that: the sum over all states of a round, each by this probability, is the expected
sum over those that became text, so a loss weighed so is the loss on the text with less of its dice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from distillspec.corpus.batching import Batch, TreeRows


class Side(NamedTuple):
    """The end of a draft that was not kept."""

    after: int
    """tokens of the response that it follows"""
    tokens: Sequence[int]
    weights: Sequence[float]
    """of the state after each of these"""


class Visits(NamedTuple):
    """What was visited while a response was written."""

    weights: Sequence[float]
    """of the state before each token of the response"""
    sides: Sequence[Side]

    @classmethod
    def of_text(cls, response: Sequence[int]) -> Visits:
        """Of a response beside which nothing was drafted."""
        return cls([1.0] * len(response), [])


class TreeRow(NamedTuple):
    """Token ids, and what was visited while the response was written."""

    prompt: Sequence[int]
    response: Sequence[int]
    visits: Visits


def collate_trees(rows: Sequence[TreeRow], pad_token: int) -> Batch:
    """Each row its text, then its sides, padded on the right with `pad_token`.

    States of the loss are in the order of the row: those of the text, then of each side.
    """
    assert rows
    longest = max(map(_length, rows))
    shape = (len(rows), longest)
    tokens = torch.full(shape, pad_token, dtype=torch.long)
    is_token, is_response = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
    tree = TreeRows(
        positions=torch.zeros(shape, dtype=torch.long),
        sees=torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1),
        predicts=torch.zeros(shape, dtype=torch.bool),
        weights=torch.zeros(shape),
    )
    for at, row in enumerate(rows):
        start, text = len(row.prompt), len(row.prompt) + len(row.response)
        tokens[at, :text] = torch.tensor([*row.prompt, *row.response])
        is_response[at, start:text] = True
        tree.positions[at, :text] = torch.arange(text)
        tree.sees[at, :text, :text] = torch.ones(text, text, dtype=torch.bool).tril_()
        tree.predicts[at, start - 1 : text - 1] = True
        tree.weights[at, start - 1 : text - 1] = torch.tensor(row.visits.weights)
        end = text
        for side in row.visits.sides:
            first, end = end, end + len(side.tokens)
            before = start + side.after
            tokens[at, first:end] = torch.tensor(side.tokens)
            tree.positions[at, first:end] = torch.arange(before, before + len(side.tokens))
            tree.sees[at, first:end, :before] = True
            own = torch.ones(end - first, end - first, dtype=torch.bool).tril_()
            tree.sees[at, first:end, first:end] = own
            tree.predicts[at, first:end] = True
            tree.weights[at, first:end] = torch.tensor(side.weights)
        is_token[at, :end] = True
    return Batch(tokens, is_token, is_response, tree)


def _length(row: TreeRow) -> int:
    return len(row.prompt) + len(row.response) + sum(len(side.tokens) for side in row.visits.sides)
