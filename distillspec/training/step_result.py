"""What one optimizer step came to: sums over all processes, and the row of metrics.csv."""

from __future__ import annotations

import math
from typing import NamedTuple

from distillspec.recipe.loss import LossUnit


class StepResult(NamedTuple):
    """Sums of one step over all processes; its methods form the rates.

    Attributes:
        loss: Weighted sum of the losses.
        weight: Sum of the weights: tokens, or sequences.
        alpha: Sum of the acceptance rates over tokens; NaN without a target.
        tokens: Tokens in the loss.
        learning_rate: Of the update.
        gradient_norm: Before clipping.
        seconds: By training phase, on this process.
        alpha_is_bound: Whether the true alpha is at most this value (cached top-k logits).
        loss_unit: Of the loss.
    """

    loss: float
    weight: float
    alpha: float
    tokens: float
    learning_rate: float
    gradient_norm: float
    seconds: dict[str, float]
    alpha_is_bound: bool = False
    loss_unit: LossUnit = "nats"

    def mean_loss(self) -> float:
        """Loss per token, or per sequence."""
        return self.loss / self.weight

    def metrics(self) -> dict[str, float]:
        """The row of metrics.csv: loss per token (or sequence), tokens per second."""
        loss = "train/divergence_nats" if self.loss_unit == "nats" else "train/divergence"
        busy = sum(self.seconds.values())
        alpha = "train/alpha_at_most" if self.alpha_is_bound else "train/alpha"
        return {
            loss: self.mean_loss(),
            alpha: self.alpha / self.tokens if self.tokens else math.nan,
            "train/response_tokens": self.tokens,
            "train/tokens_per_second": self.tokens / busy,
            "train/learning_rate": self.learning_rate,
            "train/gradient_norm": self.gradient_norm,
            **{f"train/{name}_seconds": spent for name, spent in self.seconds.items()},
        }
