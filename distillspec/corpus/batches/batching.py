"""Rows of prompt and response -> one padded batch with its masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TreeRows(NamedTuple):
    """Rows of more than one text, none of which sees another (see `tree_rows.py`)."""

    positions: Tensor
    """long [B, T], each token's in its own branch"""
    sees: Tensor
    """bool [B, T, T]: which tokens each one has before it, itself among them"""
    predicts: Tensor
    """bool [B, T]: tokens whose next token's distribution is learned"""
    weights: Tensor
    """[B, T], of what each of these adds to the loss"""
    lengths: Tensor
    """long [texts], tokens in the loss of each text, sides included, row by row"""


class KnownResponses(NamedTuple):
    """What is known already of the target, for some of the N tokens in the loss, row by row."""

    positions: Tensor
    """bool [N]"""
    states: Tensor
    """[N', H]: the hidden states that predict these tokens"""


class Batch(NamedTuple):
    """tokens: [B, T] long. is_token: [B, T] bool, False on padding. is_response: [B, T] bool.

    tree: of rows that are more than one text.

    A prompt that is learned from as well counts as response, but for its first token.
    `is_response[b, t]` says that the token *at* t belongs to the response; the position whose
    prediction is judged is the one before it (the shift is written in training/objective.py).
    """

    tokens: Tensor
    is_token: Tensor
    is_response: Tensor
    tree: TreeRows | None = None
    known: KnownResponses | None = None

    def to(self, device: torch.device) -> Batch:
        """On that device."""
        tokens, is_token, is_response = (field.to(device) for field in self[:3])
        tree = None if self.tree is None else TreeRows(*(field.to(device) for field in self.tree))
        known = (
            None
            if self.known is None
            else KnownResponses(*(field.to(device) for field in self.known))
        )
        return Batch(tokens, is_token, is_response, tree, known)


def collate(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    pad_token: int,
    *,
    on_prompts: bool = False,
) -> Batch:
    """Pairs (prompt, response) of token ids, padded on the right with `pad_token`.

    The masks come from the lengths, never from the ids: where padding and end-of-text are one
    token, a real end-of-text stays a token of the response.
    """
    assert rows
    assert all(prompt for prompt, _ in rows)
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    tokens = torch.full((len(rows), longest), pad_token, dtype=torch.long)
    prompts = torch.tensor([1 if on_prompts else len(prompt) for prompt, _ in rows])
    ends = torch.tensor([len(prompt) + len(response) for prompt, response in rows])
    for row, (prompt, response) in zip(tokens, rows, strict=True):
        row[: len(prompt) + len(response)] = torch.tensor([*prompt, *response])
    position = torch.arange(longest)
    is_token = position < ends[:, None]
    return Batch(tokens, is_token, is_token & (position >= prompts[:, None]))
