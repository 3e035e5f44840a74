"""Rows that hold more than one text: several packed together, or a text and its rejected drafts.

A round of speculative decoding drafts G tokens whatever happens to them; its i-th state, the text
and i drafted tokens, is reached with probability prod_{j <= i} min(1, p_j/q_j). Text is what the
coins made of that: the sum over all states of a round, each by this probability, is the expected
sum over those that became text, so a loss weighed so is the loss on the text with less of its dice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from distillspec.corpus.batches.batching import Batch, TreeRows


class BranchSide(NamedTuple):
    """The end of a draft that was not kept."""

    after: int
    """tokens of the response that it follows"""
    tokens: Sequence[int]
    weights: Sequence[float]
    """of the state after each of these"""


class RejectedBranches(NamedTuple):
    """What is learned from of a text, and what was visited while its response was written."""

    weights: Sequence[float]
    """of the state before each token in the loss; they are the last tokens of the text"""
    sides: Sequence[BranchSide]

    @classmethod
    def of_text(cls, tokens: int, weight: float = 1.0) -> RejectedBranches:
        """Of a text with `tokens` tokens in the loss, beside which nothing was drafted."""
        return cls([weight] * tokens, [])


class TreeRow(NamedTuple):
    """Token ids, and what of them is learned from."""

    prompt: Sequence[int]
    response: Sequence[int]
    visits: RejectedBranches

    @property
    def tokens(self) -> int:
        """Places that it takes."""
        sides = sum(len(side.tokens) for side in self.visits.sides)
        return len(self.prompt) + len(self.response) + sides


def collate_trees(rows: Sequence[Sequence[TreeRow]], pad_token: int) -> Batch:
    """Each row its texts one after another, each with its sides behind it, padded on the right.

    No token sees one of another text or side. States of the loss are in the order of the row:
    those of the text, then of each side.
    """
    assert rows and all(rows)
    longest = max(sum(one.tokens for one in row) for row in rows)
    shape = (len(rows), longest)
    batch = Batch(
        torch.full(shape, pad_token, dtype=torch.long),
        torch.zeros(shape, dtype=torch.bool),
        torch.zeros(shape, dtype=torch.bool),
        TreeRows(
            positions=torch.zeros(shape, dtype=torch.long),
            sees=torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1),
            predicts=torch.zeros(shape, dtype=torch.bool),
            weights=torch.zeros(shape),
            lengths=torch.tensor([_predicted(one) for row in rows for one in row]),
        ),
    )
    for at, row in enumerate(rows):
        first = 0
        for one in row:
            _place(batch, at, first, one)
            first += one.tokens
    return batch


def _place(batch: Batch, at: int, first: int, row: TreeRow) -> None:
    """Write one text with its sides into row `at`, from place `first` on."""
    assert batch.tree is not None
    tree, prompt = batch.tree, len(row.prompt)
    text = prompt + len(row.response)
    end, learned = first + text, len(row.visits.weights)
    batch.tokens[at, first:end] = torch.tensor([*row.prompt, *row.response])
    batch.is_response[at, first + prompt : end] = True
    tree.positions[at, first:end] = torch.arange(text)
    tree.sees[at, first:end, first:end] = _causal(text)
    tree.predicts[at, end - 1 - learned : end - 1] = True
    tree.weights[at, end - 1 - learned : end - 1] = torch.tensor(row.visits.weights)
    for side in row.visits.sides:
        begin, end = end, end + len(side.tokens)
        before = prompt + side.after
        batch.tokens[at, begin:end] = torch.tensor(side.tokens)
        tree.positions[at, begin:end] = torch.arange(before, before + len(side.tokens))
        tree.sees[at, begin:end, first : first + before] = True
        tree.sees[at, begin:end, begin:end] = _causal(len(side.tokens))
        tree.predicts[at, begin:end] = True
        tree.weights[at, begin:end] = torch.tensor(side.weights)
    batch.is_token[at, first:end] = True


def _causal(tokens: int) -> torch.Tensor:
    return torch.ones(tokens, tokens, dtype=torch.bool).tril_()


def _predicted(row: TreeRow) -> int:
    return len(row.visits.weights) + sum(len(side.tokens) for side in row.visits.sides)


def packed(rows: Sequence[TreeRow], tokens: int) -> list[list[TreeRow]]:
    """Texts put together into few rows of at most `tokens` (or of one longer text), longest first.

    First-fit decreasing: at most 11/9 of the fewest rows there could be, and one.
    """
    found: list[list[TreeRow]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: -row.tokens):
        fits = (place for place, left in enumerate(room) if left >= row.tokens)
        place = next(fits, None)
        if place is None:
            found.append([row])
            room.append(tokens - row.tokens)
        else:
            found[place].append(row)
            room[place] -= row.tokens
    return found
