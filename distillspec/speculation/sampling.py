"""The only place where logits become the distribution that is drawn from and verified.

Decoding does little arithmetic in many small operations, each of which finds cold caches after a
forward. So this file computes nothing that is not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.recipe.temperature import LOWEST_TEMPERATURE, is_computable
from distillspec.speculation.random_source import RandomSource


@dataclass(frozen=True)
class SamplingPolicy:
    """Temperature, then top-k, then nucleus (top-p), the same for target and draft.

    Logits may be -inf, but not NaN, not +inf, and not all -inf. For such a row the probability of
    token 0 is NaN, with every policy. Nothing waits for the device to find out; `check_finite`
    checks it once per round or text.

    Attributes:
        temperature: 0 or at least `LOWEST_TEMPERATURE`. 0 is the one-hot distribution of the
            argmax, with the lowest index at a tie.
        top_k: Keep this many tokens; of those that tie at the k-th logit, the lowest indices.
        nucleus: Keep the smallest set of most probable tokens with at least this mass, in (0, 1].
    """

    temperature: float = 1.0
    top_k: int | None = None
    nucleus: float | None = None
    _latest: _Latest = field(
        default_factory=lambda: _Latest(), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not is_computable(self.temperature):
            allowed = f"0, or {LOWEST_TEMPERATURE:g} or more"
            raise _out_of_range("temperature", self.temperature, allowed)
        if self.top_k is not None and self.top_k < 1:
            raise _out_of_range("top_k", self.top_k, "1 or more")
        if self.nucleus is not None and not 0.0 < self.nucleus <= 1.0:
            raise _out_of_range("nucleus", self.nucleus, "above 0 and at most 1")

    def distribution(self, logits: Tensor) -> Tensor:
        """Logits [..., V] -> probabilities [..., V] in float32 (float64 stays), filtered ones 0."""
        if self.temperature == 0.0:
            return _one_hot(_largest(logits), logits)
        if self.top_k is None and self.nucleus is None:
            return self._unfiltered(logits)
        scores = logits.to(precise(logits)) / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            scores = scores.masked_fill(~_is_in_top_k(scores, self.top_k), -torch.inf)
        # The nucleus is a share of the mass that top-k has left.
        if self.nucleus is not None and self.nucleus < 1.0:
            scores = scores.masked_fill(~_is_in_nucleus(scores, self.nucleus), -torch.inf)
        distribution = scores.softmax(-1)
        highest = logits.amax(-1).to(distribution.dtype)  # a filter may have left the rest finite
        # x - x is 0 for finite x and NaN otherwise: it marks rows without a distribution.
        distribution[..., 0] += highest - highest
        return distribution

    def draw(self, logits: Tensor, random_source: RandomSource) -> Tensor:
        """One token per row of logits [..., V] -> long [...]."""
        return self.draw_with_doubt(logits, random_source).token

    def draw_with_doubt(self, logits: Tensor, random_source: RandomSource) -> DrawnToken:
        """`draw`, together with what `check_finite` needs."""
        if self.temperature == 0.0:
            # A draw needs no one-hot vector; the largest logit shows a bad row.
            highest, token = _largest(logits)
            return DrawnToken(token, highest)
        distribution = self.distribution(logits)
        return DrawnToken(random_source.draw(distribution), distribution[..., 0])

    def draw_with_distribution(
        self, logits: Tensor, random_source: RandomSource
    ) -> tuple[Tensor, Tensor]:
        """`draw`, together with the distribution of `distribution`."""
        if self.temperature == 0.0:
            largest = _largest(logits)
            return largest.indices, _one_hot(largest, logits)
        distribution = self.distribution(logits)
        return random_source.draw(distribution), distribution

    def untempered(self, logits: Tensor) -> Tensor:
        """softmax(z / T_s), T_s = T if T > 0 else 1, unfiltered: what stop rules read.

        At temperature 0 `distribution` is one-hot, and no rule would see an unsure draft.
        """
        return self._unfiltered(logits)

    @property
    def reading_temperature(self) -> float:
        """T_s of `untempered`."""
        return self.temperature if self.temperature > 0.0 else 1.0

    def _unfiltered(self, logits: Tensor) -> Tensor:
        """`untempered`; a stop rule and the draw after it share one softmax."""
        latest = self._latest.seen
        if latest is not None and latest[0] is logits:
            return latest[1]
        distribution = _softmax(logits, self.reading_temperature)
        if logits.dim() == 1:  # many rows are read once, and holding them takes memory
            self._latest.seen = logits, distribution
        return distribution


class DrawnToken(NamedTuple):
    """Tokens, and a value per token that shows whether it was drawn from a distribution.

    Attributes:
        token: long [...].
        doubt: Shape [...]; NaN or infinite where the logits gave no distribution.
    """

    token: Tensor
    doubt: Tensor


class _Latest:
    """The last row of logits [V] and its softmax. Nobody writes to either of them."""

    seen: tuple[Tensor, Tensor] | None = None  # one value: threads may share a policy

    def __reduce__(self) -> tuple[type[_Latest], tuple[()]]:
        """A policy that goes to another process takes no logits with it."""
        return _Latest, ()


def check_finite(model: str, *doubts: Tensor) -> None:
    """Check that logits gave distributions; waits for the device.

    Args:
        model: The model of the logits, for the error.
        doubts: Of any shape; finite unless logits were NaN, +inf or all -inf. They are the
            probability of token 0 in what a policy made of logits, `DrawnToken.doubt`, or sums of
            these.

    Raises:
        DistillSpecError: The logits gave no distribution.
    """
    if not math.isfinite(sum(float(doubt.sum()) for doubt in doubts)):
        raise DistillSpecError(
            f"the logits of {model} are NaN or infinite: they give no distribution",
            where="its logits for the next token",
            fix="check its weights for NaN; in half precision use bfloat16 or float32",
        )


def most_probable(logits: Tensor) -> Tensor:
    """The argmax of each row [..., V] -> long [...]: the first of equals, as torch documents."""
    return _largest(logits).indices


def _largest(logits: Tensor) -> torch.return_types.max:
    """The largest logit of each row and its index; not finite for a row without distribution."""
    return logits.to(precise(logits)).max(-1)  # half precision is twice as slow


def _one_hot(largest: torch.return_types.max, logits: Tensor) -> Tensor:
    """[...] -> one-hot [..., V], in the precision of the logits' distribution."""
    nothing = torch.zeros_like(logits, dtype=precise(logits))
    one_hot = nothing.scatter_(-1, largest.indices.unsqueeze(-1), 1.0)
    # Adds 0, or NaN to a row whose largest logit is not finite.
    one_hot[..., 0] += largest.values - largest.values
    return one_hot


def _softmax(logits: Tensor, temperature: float) -> Tensor:
    dtype = precise(logits)
    if temperature == 1.0:
        return logits.softmax(-1, dtype=dtype)
    return (logits.to(dtype) / temperature).softmax(-1)


def precise(logits: Tensor) -> torch.dtype:
    """The dtype of distributions: float32, or float64 where the logits are float64."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _is_in_top_k(scores: Tensor, k: int) -> Tensor:
    """bool [..., V]: exactly k per row, the lowest indices among ties."""
    kth = scores.topk(k, dim=-1).values[..., -1:]
    above = scores > kth
    ties = scores == kth
    free = k - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= free))


def _is_in_nucleus(scores: Tensor, mass: float) -> Tensor:
    """bool [..., V]: the most probable tokens until their mass reaches `mass`."""
    probabilities, order = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
    mass_before = probabilities.cumsum(-1) - probabilities
    is_kept = mass_before < mass
    is_kept[..., 0] = True
    # From the order of probability back to the order of token ids.
    return torch.zeros_like(is_kept).scatter_(-1, order, is_kept)


def _out_of_range(name: str, value: float, allowed: str) -> DistillSpecError:
    return DistillSpecError(
        f"{name} is {value}, out of range",
        where="sampling policy",
        fix=f"set {name} to {allowed}",
    )


def entropy_in_one_pass(logits: Tensor, temperature: Tensor) -> Tensor:
    """Entropy of softmax(z / T_s) in nats, in a form that a compiled graph fuses.

    Args:
        logits: Shape [V].
        temperature: T_s, a scalar above 0.

    Returns:
        A scalar on the device.
    """
    scores = logits.to(precise(logits)) / temperature
    # The shift prevents overflow and cancels in the entropy.
    scores = scores - scores.max()
    weights = scores.exp()
    total = weights.sum()
    # An impossible token would add 0 * -inf, which is NaN.
    return total.log() - torch.where(weights > 0.0, weights * scores, 0.0).sum() / total
