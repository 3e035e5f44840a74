"""What a token weighs in its step where that depends on all of them: TVD++ and token selection."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.recipe.distill import DistillConfig


class StepStatistics(NamedTuple):
    """Of the N predicted tokens of one batch, after the first pass; None where not asked for."""

    preferred: Tensor | None
    """[N], 1 where p(token) > q(token), else 0: the reward of TVD++"""
    gap: Tensor | None
    """[N], KL(p || q) - KL(p || reference), nats: what the draft can still learn there"""
    alpha: Tensor
    """[N], the acceptance rate"""

    def weights(self, step: Sequence[StepStatistics], distill: DistillConfig) -> TokenWeights:
        """Of this batch's tokens, given all batches of the step, this one among them."""
        advantages = kept = None
        if self.preferred is not None:
            advantages = _normalised(self.preferred, _joined(one.preferred for one in step))
        if self.gap is not None:
            assert distill.select is not None
            kept = self.gap.double() >= _least_kept(
                _joined(one.gap for one in step), distill.select.keep
            )
        return TokenWeights(advantages, kept, self.alpha)

    def to(self, device: torch.device | str) -> StepStatistics:
        """On that device."""
        preferred, gap = (None if one is None else one.to(device) for one in self[:2])
        return StepStatistics(preferred, gap, self.alpha.to(device))


class TokenWeights(NamedTuple):
    """What the step makes of one batch's N tokens."""

    advantages: Tensor | None
    """[N], rewards beyond the step's mean, in its standard deviations"""
    is_kept: Tensor | None
    """bool [N]; None: all"""
    alpha: Tensor
    """[N], as observed"""

    def kept(self, weights: Tensor) -> Tensor:
        """weights [N], 0 for tokens that are left out."""
        return weights if self.is_kept is None else weights * self.is_kept


def _joined(parts: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([part.double() for part in parts if part is not None])


def _normalised(rewards: Tensor, of_step: Tensor) -> Tensor:
    """(reward - mean) / standard deviation; 0 where all rewards of the step are the same."""
    if not len(of_step) or bool((of_step == of_step[0]).all()):
        return torch.zeros_like(rewards)
    centred = (rewards.double() - of_step.mean()) / of_step.std(correction=0)
    return centred.to(rewards.dtype)


def _least_kept(gaps: Tensor, share: float) -> Tensor:
    """The gap that the share of the tokens with the largest ones reaches; ties are all kept."""
    if not len(gaps):
        return gaps.new_zeros(())
    return gaps.topk(math.ceil(share * len(gaps))).values[-1]
