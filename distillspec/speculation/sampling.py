"""The one place where logits become the distribution that is drawn from and verified.

Decoding does little arithmetic and many small operations, each of which finds cold caches after a
forward: what need not be computed is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.speculation.chance import Chance


@dataclass(frozen=True)
class SamplingPolicy:
    """Temperature, then top-k, then nucleus (top-p), the same for target and draft.

    temperature: >= 0; 0 is the one-hot distribution of the argmax, lowest index at a tie.
    top_k: keep this many tokens, lowest indices among those that tie at the k-th logit.
    nucleus: keep the smallest set of likeliest tokens with at least this mass, in (0, 1].
    """

    temperature: float = 1.0
    top_k: int | None = None
    nucleus: float | None = None
    _latest: _Latest = field(
        default_factory=lambda: _Latest(), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise _out_of_range("temperature", self.temperature, "0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise _out_of_range("top_k", self.top_k, "1 or more")
        if self.nucleus is not None and not 0.0 < self.nucleus <= 1.0:
            raise _out_of_range("nucleus", self.nucleus, "above 0 and at most 1")

    def distribution(self, logits: Tensor) -> Tensor:
        """Logits [..., V] -> probabilities [..., V] in float32 (float64 stays), filtered ones 0."""
        if self.temperature == 0.0:
            return _one_hot(likeliest(logits), logits)
        if self.top_k is None and self.nucleus is None:
            return self._unfiltered(logits)
        scores = logits.to(precise(logits)) / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            scores = scores.masked_fill(~_is_in_top_k(scores, self.top_k), -torch.inf)
        if self.nucleus is not None and self.nucleus < 1.0:
            scores = scores.masked_fill(~_is_in_nucleus(scores, self.nucleus), -torch.inf)
        return scores.softmax(-1)

    def draw(self, logits: Tensor, chance: Chance) -> Tensor:
        """One token a row of logits [..., V] -> long [...]."""
        if self.temperature == 0.0:
            return likeliest(logits)
        return chance.draw(self.distribution(logits))

    def draw_with_distribution(self, logits: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
        """`draw`, and the distribution it was drawn from, as `distribution` gives it."""
        if self.temperature == 0.0:
            token = likeliest(logits)
            return token, _one_hot(token, logits)
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


class _Latest:
    """The row of logits [V] asked about last, and its softmax. Neither is written to by anyone."""

    seen: tuple[Tensor, Tensor] | None = None  # one value: threads may share a policy

    def __reduce__(self) -> tuple[type[_Latest], tuple[()]]:
        """A policy that goes to another process takes no logits with it."""
        return _Latest, ()


def likeliest(logits: Tensor) -> Tensor:
    """The argmax of each row [..., V] -> long [...]: the first of equals, as torch documents."""
    return logits.to(precise(logits)).argmax(-1)  # half precision is twice as slow


def _one_hot(token: Tensor, logits: Tensor) -> Tensor:
    """long [...] -> [..., V], in the precision and shape of the logits' distribution."""
    nothing = torch.zeros_like(logits, dtype=precise(logits))
    return nothing.scatter_(-1, token.unsqueeze(-1), 1.0)


def _softmax(logits: Tensor, temperature: float) -> Tensor:
    dtype = precise(logits)
    if temperature == 1.0:
        return logits.softmax(-1, dtype=dtype)
    return (logits.to(dtype) / temperature).softmax(-1)


def precise(logits: Tensor) -> torch.dtype:
    """What laws are computed in: float32, or float64 where the logits are."""
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
        mend=f"give a {name} of {allowed}",
    )
