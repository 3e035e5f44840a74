"""The output head of a language model: the map from its last hidden state to logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class OutputHead(NamedTuple):
    """logits = cap(scale * (W h + b)), with cap(z) = softcap * tanh(z / softcap).

    Attributes:
        weight: W, [V, H]. It may be the input embedding's parameter; gradients then add up.
        bias: b, [V]; -inf forbids a token. With a softcap it gives it the lowest logit.
        scale: Factor of Cohere's and Granite's models.
        softcap: Bound of Gemma's logits; None leaves them as they are.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens that the head scores."""
        return self.weight.shape[0]

    def trimmed(self, vocab_size: int) -> OutputHead:
        """The head over its first `vocab_size` tokens."""
        bias = None if self.bias is None else self.bias[:vocab_size]
        return self._replace(weight=self.weight[:vocab_size], bias=bias)

    def only(self, tokens: Tensor) -> OutputHead:
        """The head that scores only `tokens`, long [K]: K rows in their order."""
        bias = None if self.bias is None else self.bias[tokens]
        return self._replace(weight=self.weight[tokens], bias=bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """All logits at once: [..., H] -> [..., V], in the dtype of `hidden` (or autocast's)."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        logits = F.linear(hidden, self.weight.to(hidden.dtype), bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits
