"""Every divergence between target and draft, by the name that recipes use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from distillspec.divergence.distribution import Distribution, ValueAndGradient
from distillspec.divergence.jensen_shannon import jensen_shannon, jensen_shannon_gradient
from distillspec.divergence.kullback_leibler import (
    forward_kl,
    forward_kl_gradient,
    reverse_kl,
    reverse_kl_gradient,
)
from distillspec.divergence.total_variation import total_variation, total_variation_gradient
from distillspec.errors import DistillSpecError


class Divergence(NamedTuple):
    """One divergence in two forms that agree: for autograd, and with its gradient worked out."""

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    """p_logits, q_logits [..., V] -> [...]"""
    value_and_gradient: Callable[[Distribution, Distribution, Tensor], ValueAndGradient]
    """p, q at N positions, and room [N, V] for the gradient in q's logits"""


DIVERGENCES: dict[str, Callable[[float], Divergence]] = {
    "forward_kl": lambda _: Divergence("forward_kl", forward_kl, forward_kl_gradient),
    "reverse_kl": lambda _: Divergence("reverse_kl", reverse_kl, reverse_kl_gradient),
    "jsd": lambda jsd_weight: Divergence(
        "jsd",
        partial(jensen_shannon, jsd_weight=jsd_weight),
        partial(jensen_shannon_gradient, jsd_weight=jsd_weight),
    ),
    "tvd": lambda _: Divergence("tvd", total_variation, total_variation_gradient),
}
"""Name -> divergence, given the weight beta of the target in JSD[beta] (jsd only)."""


def divergence(name: str, *, jsd_weight: float = 0.5) -> Divergence:
    """The divergence called `name`; `jsd_weight` in (0, 1) is the target's weight, jsd only."""
    if name not in DIVERGENCES:
        raise DistillSpecError(
            f"unknown divergence '{name}'",
            where="distill.divergence",
            mend=f"choose one of {', '.join(DIVERGENCES)}",
        )
    assert 0.0 < jsd_weight < 1.0, f"jsd_weight {jsd_weight} is not in (0, 1)"
    return DIVERGENCES[name](jsd_weight)
