"""The positions of a batch that are in the loss, with the shift by one, and their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.corpus.batches.batching import Batch


def predicts_response(batch: Batch) -> Tensor:
    """Positions whose next token belongs to a response, bool [B, T].

    A causal model's output at position t is its distribution of token t + 1. So the prompt's last
    position predicts the first response token, and the last position of a row predicts no known
    token. Tree rows store these positions.
    """
    if batch.tree is not None:
        return batch.tree.predicts
    predicts = torch.zeros_like(batch.is_response)
    predicts[:, :-1] = batch.is_response[:, 1:]
    return predicts


def tokens_per_text(batch: Batch) -> Tensor:
    """Number of tokens in the loss per text, long [texts], in the order of the N tokens."""
    return predicts_response(batch).sum(1) if batch.tree is None else batch.tree.lengths


def token_weights(batch: Batch, reduction: str) -> Tensor:
    """Weight of each predicted token.

    Divide the loss by the sum of the weights over all micro-batches and processes of a step.

    Args:
        batch: Its tree rows, if any, bring their weights.
        reduction: "tokens" weighs each token 1, so the sum counts tokens. "sequences" weighs it
            1 / length of its response, so the sum counts sequences.

    Returns:
        Shape [N], in row-major order.
    """
    predicts = predicts_response(batch)
    if batch.tree is not None:
        return batch.tree.weights[predicts]
    if reduction == "tokens":
        return torch.ones(int(predicts.sum()), device=predicts.device)
    # A row without a response has no position to weigh; the clamp avoids 1 / 0.
    lengths = predicts.sum(dim=1, keepdim=True).clamp(min=1)
    return (1.0 / lengths).expand_as(predicts)[predicts]
