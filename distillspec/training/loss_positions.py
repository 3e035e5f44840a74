"""Which positions of a batch a loss is over, and their weights. The shift is written here once."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.corpus.batches.batching import Batch


def predicts_response(batch: Batch) -> Tensor:
    """Positions whose next token belongs to a response: bool [B, T].

    The one place of the shift: a causal model's output at position t is its distribution of token t
    + 1, so the first response token is predicted at the prompt's last position, and the last
    position of a row predicts nothing we know. Rows that are trees bring these positions with them.
    """
    if batch.tree is not None:
        return batch.tree.predicts
    predicts = torch.zeros_like(batch.is_response)
    predicts[:, :-1] = batch.is_response[:, 1:]
    return predicts


def texts_of(batch: Batch) -> Tensor:
    """Tokens in the loss of each text, in the order of the N: long [texts]."""
    return predicts_response(batch).sum(1) if batch.tree is None else batch.tree.lengths


def token_weights(batch: Batch, reduction: str) -> Tensor:
    """Weight of each predicted token in row-major order: [N], whose sum is what the loss is over.

    "tokens": 1 each, so the sum counts tokens. "sequences": 1 / length of its response, so the sum
    counts sequences. Rows that are trees have weights of their own. Divide the loss by the sum over
    all micro-batches and processes of a step.
    """
    predicts = predicts_response(batch)
    if batch.tree is not None:
        return batch.tree.weights[predicts]
    if reduction == "tokens":
        return torch.ones(int(predicts.sum()), device=predicts.device)
    lengths = predicts.sum(dim=1, keepdim=True).clamp(min=1)
    return (1.0 / lengths).expand_as(predicts)[predicts]
