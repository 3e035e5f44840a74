"""Token weights that depend on all tokens of a step: TVD++ and token selection."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.recipe.distill import DistillConfig


class StepStatistics(NamedTuple):
    """Statistics of the N predicted tokens of one batch, from the first pass.

    Attributes:
        preferred: Reward of TVD++, [N]: 1 if p(token) > q(token), else 0. None if not needed.
        gap: KL(p || q) - KL(p || reference), [N], nats: what the draft can still learn at this
            token. None if not needed.
        alpha: Acceptance rate, [N].
    """

    preferred: Tensor | None
    gap: Tensor | None
    alpha: Tensor

    def weights(self, step: Sequence[StepStatistics], distill: DistillConfig) -> TokenWeights:
        """Weights of this batch's tokens.

        Args:
            step: Statistics of all batches of the step, including this batch.
            distill: Its `select` is read.
        """
        advantages = is_kept = None
        if self.preferred is not None:
            advantages = _normalised(self.preferred, _joined(batch.preferred for batch in step))
        if self.gap is not None:
            assert distill.select is not None
            # In double on both sides: the gap that set the threshold must compare as equal.
            is_kept = self.gap.double() >= _smallest_kept_gap(
                _joined(batch.gap for batch in step), distill.select.keep
            )
        return TokenWeights(advantages, is_kept, self.alpha)

    def to(self, device: torch.device | str) -> StepStatistics:
        """The same statistics on `device`."""
        preferred, gap = (None if part is None else part.to(device) for part in self[:2])
        return StepStatistics(preferred, gap, self.alpha.to(device))


class TokenWeights(NamedTuple):
    """Weights of the N tokens of one batch.

    Attributes:
        advantages: Rewards minus the step's mean, in the step's standard deviations, [N]. None if
            not needed.
        is_kept: Whether token selection keeps the token, bool [N]; None keeps all.
        alpha: Acceptance rate of the first pass, [N].
    """

    advantages: Tensor | None
    is_kept: Tensor | None
    alpha: Tensor

    def kept(self, weights: Tensor) -> Tensor:
        """The weights [N], with 0 for tokens that selection leaves out."""
        return weights if self.is_kept is None else weights * self.is_kept


def _joined(parts: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([part.double() for part in parts if part is not None])


def _normalised(rewards: Tensor, of_step: Tensor) -> Tensor:
    """(reward - mean) / standard deviation; 0 if all rewards of the step are equal."""
    if not len(of_step) or bool((of_step == of_step[0]).all()):
        return torch.zeros_like(rewards)
    centred = (rewards.double() - of_step.mean()) / of_step.std(correction=0)
    return centred.to(rewards.dtype)


def _smallest_kept_gap(gaps: Tensor, share: float) -> Tensor:
    """The smallest gap among the share of tokens with the largest gaps; equal gaps are all kept."""
    if not len(gaps):
        return gaps.new_zeros(())
    return gaps.topk(math.ceil(share * len(gaps))).values[-1]
