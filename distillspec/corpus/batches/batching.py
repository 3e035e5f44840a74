"""Rows of prompt and response become one padded batch with its masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TreeRows(NamedTuple):
    """Rows of several texts that do not attend to each other (see `tree_rows.py`).

    Attributes:
        positions: Position of each token in its branch, long [B, T].
        sees: The tokens that each token attends to, itself included, bool [B, T, T].
        predicts: Tokens after which the next-token distribution is in the loss, bool [B, T].
        weights: Weight of each of these tokens in the loss, [B, T].
        lengths: Number of tokens in the loss of each text, row by row, branches included,
            long [texts].
    """

    positions: Tensor
    sees: Tensor
    predicts: Tensor
    weights: Tensor
    lengths: Tensor


class KnownResponses(NamedTuple):
    """The target's hidden states that are known for N' of the N tokens in the loss, row by row.

    Attributes:
        positions: Tokens whose state is known, bool [N].
        states: The hidden states that predict these tokens, [N', H].
    """

    positions: Tensor
    states: Tensor


class Batch(NamedTuple):
    """One padded batch.

    `is_response[b, t]` means that the token *at* t belongs to the response. The prediction in the
    loss is made one position earlier; `training/loss_positions.py` applies this shift. With
    training on prompts, a prompt counts as response, except for its first token.

    Attributes:
        tokens: Token ids, long [B, T].
        is_token: False on padding, bool [B, T].
        is_response: True on tokens of the response, bool [B, T].
        tree: Positions and masks of rows with several texts; else None.
        known: Hidden states of the target that need no forward.
    """

    tokens: Tensor
    is_token: Tensor
    is_response: Tensor
    tree: TreeRows | None = None
    known: KnownResponses | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
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
    """Pad rows on the right to one batch.

    The masks are made from the lengths, never from the ids. Where padding and end-of-text share an
    id, a real end-of-text stays a token of the response.

    Args:
        rows: Pairs (prompt, response) of token ids; prompts are not empty.
        pad_token: Id of the padding.
        on_prompts: Whether the loss includes the prompts.
    """
    assert rows
    assert all(prompt for prompt, _ in rows)
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    tokens = torch.full((len(rows), longest), pad_token, dtype=torch.long)
    # First token in the loss. No position predicts token 0, so it is at least 1.
    prompts = torch.tensor([1 if on_prompts else len(prompt) for prompt, _ in rows])
    ends = torch.tensor([len(prompt) + len(response) for prompt, response in rows])
    for row, (prompt, response) in zip(tokens, rows, strict=True):
        row[: len(prompt) + len(response)] = torch.tensor([*prompt, *response])
    position = torch.arange(longest)
    is_token = position < ends[:, None]
    return Batch(tokens, is_token, is_token & (position >= prompts[:, None]))
