"""The one place where logits become the distribution that is drawn from and verified.

Decoding does little arithmetic and many small operations, each of which finds cold caches after a
forward: what need not be computed is not.
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

    temperature: 0, the one-hot distribution of the argmax, lowest index at a tie; or from
    `LOWEST_TEMPERATURE` on.
    top_k: keep this many tokens, lowest indices among those that tie at the k-th logit.
    nucleus: keep the smallest set of likeliest tokens with at least this mass, in (0, 1].

    Logits may be -inf, but neither NaN nor +inf, nor all -inf: of such a row the probability of
    token 0 is NaN, whatever the policy. Nothing waits for the device to find out; `check_finite`
    asks once a round or text.
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
        if self.nucleus is not None and self.nucleus < 1.0:
            scores = scores.masked_fill(~_is_in_nucleus(scores, self.nucleus), -torch.inf)
        distribution = scores.softmax(-1)
        highest = logits.amax(-1).to(distribution.dtype)  # a filter may have left the rest finite
        distribution[..., 0] += highest - highest
        return distribution

    def draw(self, logits: Tensor, chance: RandomSource) -> Tensor:
        """One token a row of logits [..., V] -> long [...]."""
        return self.draw_with_doubt(logits, chance).token

    def draw_with_doubt(self, logits: Tensor, chance: RandomSource) -> DrawnToken:
        """`draw`, and what `check_finite` wants of it."""
        if self.temperature == 0.0:
            highest, token = _largest(logits)
            return DrawnToken(token, highest)
        distribution = self.distribution(logits)
        return DrawnToken(chance.draw(distribution), distribution[..., 0])

    def draw_with_distribution(self, logits: Tensor, chance: RandomSource) -> tuple[Tensor, Tensor]:
        """`draw`, and the distribution it was drawn from, as `distribution` gives it."""
        if self.temperature == 0.0:
            largest = _largest(logits)
            return largest.indices, _one_hot(largest, logits)
        distribution = self.distribution(logits)
        return chance.draw(distribution), distribution

    def untempered(self, logits: Tensor) -> Tensor:
        """softmax(z / T_s), T_s = T if T > 0 else 1, unfiltered: what stop rules read.

        At temperature 0 `distribution` is one-hot and would show no rule any doubt.
        """
        return self._unfiltered(logits)

    @property
    def reading_temperature(self) -> float:
        """T_s, of `untempered`."""
        return self.temperature if self.temperature > 0.0 else 1.0

    def _unfiltered(self, logits: Tensor) -> Tensor:
        """One softmax for a stop rule and for the draw that follows it, not one each."""
        latest = self._latest.seen
        if latest is not None and latest[0] is logits:
            return latest[1]
        found = _softmax(logits, self.reading_temperature)
        if logits.dim() == 1:  # of many rows nobody asks twice, and holding them takes memory
            self._latest.seen = logits, found
        return found


class DrawnToken(NamedTuple):
    """Tokens, long [...], and of each what tells `check_finite` whether it was drawn at all."""

    token: Tensor
    doubt: Tensor


class _Latest:
    """The row of logits [V] asked about last, and its softmax. Neither is written to by anyone."""

    seen: tuple[Tensor, Tensor] | None = None  # one value: threads may share a policy

    def __reduce__(self) -> tuple[type[_Latest], tuple[()]]:
        """A policy that goes to another process takes no logits with it."""
        return _Latest, ()


def check_finite(model: str, *doubts: Tensor) -> None:
    """Ask whether logits gave distributions; waits for the device.

    Args:
        model: Whose logits they are, for the error.
        doubts: Of any shape: finite but where logits were NaN, +inf or all -inf. The probability of
            token 0 in what a policy made of logits, or `DrawnToken.doubt`; sums of them serve too.

    Raises:
        DistillSpecError: The logits gave none.
    """
    if not math.isfinite(sum(float(doubt.sum()) for doubt in doubts)):
        raise DistillSpecError(
            f"the logits of {model} are NaN or infinite: they give no distribution",
            where="what that model says of the next token",
            fix="look for NaN in its weights; in half precision try bfloat16 or float32",
        )


def likeliest(logits: Tensor) -> Tensor:
    """The argmax of each row [..., V] -> long [...]: the first of equals, as torch documents."""
    return _largest(logits).indices


def _largest(logits: Tensor) -> torch.return_types.max:
    """The largest of each row and its place: NaN or infinite where a row gives no distribution."""
    return logits.to(precise(logits)).max(-1)  # half precision is twice as slow


def _one_hot(largest: torch.return_types.max, logits: Tensor) -> Tensor:
    """[...] -> [..., V], in the precision and shape of the logits' distribution."""
    nothing = torch.zeros_like(logits, dtype=precise(logits))
    one_hot = nothing.scatter_(-1, largest.indices.unsqueeze(-1), 1.0)
    one_hot[..., 0] += largest.values - largest.values
    return one_hot


def _softmax(logits: Tensor, temperature: float) -> Tensor:
    dtype = precise(logits)
    if temperature == 1.0:
        return logits.softmax(-1, dtype=dtype)
    return (logits.to(dtype) / temperature).softmax(-1)


def precise(logits: Tensor) -> torch.dtype:
    """What distributions are computed in: float32, or float64 where the logits are."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _is_in_top_k(scores: Tensor, k: int) -> Tensor:
    kth = scores.topk(k, dim=-1).values[..., -1:]
    above = scores > kth
    ties = scores == kth
    free = k - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= free))


def _is_in_nucleus(scores: Tensor, mass: float) -> Tensor:
    probabilities, order = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
    likelier = probabilities.cumsum(-1) - probabilities
    is_kept = likelier < mass
    is_kept[..., 0] = True
    return torch.zeros_like(is_kept).scatter_(-1, order, is_kept)


def _out_of_range(name: str, value: float, allowed: str) -> DistillSpecError:
    return DistillSpecError(
        f"{name} is {value}, out of range",
        where="sampling policy",
        fix=f"give a {name} of {allowed}",
    )


def entropy_in_one_pass(logits: Tensor, temperature: Tensor) -> Tensor:
    """The same of logits [V] at T_s (a scalar) -> a scalar, for a graph that fuses it all."""
    scores = logits.to(precise(logits)) / temperature
    scores = scores - scores.max()
    weights = scores.exp()
    total = weights.sum()
    return total.log() - torch.where(weights > 0.0, weights * scores, 0.0).sum() / total
