"""Rows that hold several texts: packed together, or a text and its rejected drafts.

A round of speculative decoding drafts G tokens. Its i-th state, the text and i drafted tokens, is
reached with probability prod_{j <= i} min(1, p_j/q_j). Sampling decides which of these states
become text. The sum over all states of a round, weighted by these probabilities, is the expected
sum over the states that become text. A loss weighted so has the same mean as the loss on the text,
with less variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from distillspec.corpus.batches.batching import Batch, TreeRows


class RejectedBranch(NamedTuple):
    """The rejected end of a draft.

    Attributes:
        after: Number of response tokens before it.
        tokens: The rejected tokens.
        weights: Weight of the state after each of them.
    """

    after: int
    tokens: Sequence[int]
    weights: Sequence[float]


class RejectedBranches(NamedTuple):
    """The states in the loss of a text: those of the text, and those that decoding rejected.

    Attributes:
        weights: Weight of the state before each token in the loss, the last tokens of the text.
        sides: The rejected branches.
    """

    weights: Sequence[float]
    sides: Sequence[RejectedBranch]

    @classmethod
    def of_text(cls, tokens: int, weight: float = 1.0) -> RejectedBranches:
        """Those of a text with `tokens` tokens in the loss and no rejected branch."""
        return cls([weight] * tokens, [])


class TreeRow(NamedTuple):
    """Token ids of a text, and its states in the loss."""

    prompt: Sequence[int]
    response: Sequence[int]
    branches: RejectedBranches

    @property
    def tokens(self) -> int:
        """Number of positions that it takes in a row."""
        sides = sum(len(side.tokens) for side in self.branches.sides)
        return len(self.prompt) + len(self.response) + sides


def collate_trees(rows: Sequence[Sequence[TreeRow]], pad_token: int) -> Batch:
    """Put texts and their branches into a batch, padded on the right.

    A row holds its texts in order, each followed by its branches. No token attends to another text
    or branch. States in the loss are in the order of the row: those of a text, then of each branch.

    Args:
        rows: The texts of each row.
        pad_token: Id of the padding.
    """
    assert rows and all(rows)
    longest = max(sum(text.tokens for text in row) for row in rows)
    shape = (len(rows), longest)
    batch = Batch(
        torch.full(shape, pad_token, dtype=torch.long),
        torch.zeros(shape, dtype=torch.bool),
        torch.zeros(shape, dtype=torch.bool),
        TreeRows(
            positions=torch.zeros(shape, dtype=torch.long),
            # Padding sees itself, so that no row of the mask is empty.
            sees=torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1),
            predicts=torch.zeros(shape, dtype=torch.bool),
            weights=torch.zeros(shape),
            lengths=torch.tensor([_predicted(text) for row in rows for text in row]),
        ),
    )
    for at, row in enumerate(rows):
        first = 0
        for text in row:
            _write(batch, at, first, text)
            first += text.tokens
    return batch


def _write(batch: Batch, at: int, first: int, row: TreeRow) -> None:
    """Write a text with its branches into row `at` of the batch, from position `first` on."""
    # 1. The text, with a causal mask.
    assert batch.tree is not None
    tree, prompt = batch.tree, len(row.prompt)
    text = prompt + len(row.response)
    end, learned = first + text, len(row.branches.weights)
    batch.tokens[at, first:end] = torch.tensor([*row.prompt, *row.response])
    batch.is_response[at, first + prompt : end] = True
    tree.positions[at, first:end] = torch.arange(text)
    tree.sees[at, first:end, first:end] = _causal(text)
    # 2. Its states in the loss are one position before the tokens that they predict.
    tree.predicts[at, end - 1 - learned : end - 1] = True
    tree.weights[at, end - 1 - learned : end - 1] = torch.tensor(row.branches.weights)
    # 3. Each branch goes on after `before` tokens of the text. It sees these and itself.
    for side in row.branches.sides:
        begin, end = end, end + len(side.tokens)
        before = prompt + side.after
        batch.tokens[at, begin:end] = torch.tensor(side.tokens)
        tree.positions[at, begin:end] = torch.arange(before, before + len(side.tokens))
        tree.sees[at, begin:end, first : first + before] = True
        tree.sees[at, begin:end, begin:end] = _causal(len(side.tokens))
        # Each weight is of the state after a token, so the states are *at* the branch's tokens.
        tree.predicts[at, begin:end] = True
        tree.weights[at, begin:end] = torch.tensor(side.weights)
    batch.is_token[at, first:end] = True


def _causal(tokens: int) -> torch.Tensor:
    return torch.ones(tokens, tokens, dtype=torch.bool).tril_()


def _predicted(row: TreeRow) -> int:
    return len(row.branches.weights) + sum(len(side.tokens) for side in row.branches.sides)


def packed(rows: Sequence[TreeRow], tokens: int) -> list[list[TreeRow]]:
    """Pack texts into few rows of at most `tokens` tokens; a longer text has a row alone.

    First-fit decreasing needs at most 11/9 of the smallest possible number of rows, plus one.
    """
    bins: list[list[TreeRow]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: -row.tokens):
        fitting = (number for number, left in enumerate(room) if left >= row.tokens)
        number = next(fitting, None)
        if number is None:
            bins.append([row])
            room.append(tokens - row.tokens)
        else:
            bins[number].append(row)
            room[number] -= row.tokens
    return bins
