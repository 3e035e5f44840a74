"""The table of all divergences between target and draft, by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.distribution import Distribution, ValueAndGradient
from distillspec.divergence.jensen_shannon import fused_jensen_shannon, jensen_shannon
from distillspec.divergence.kullback_leibler import (
    forward_kl,
    fused_forward_kl,
    fused_reverse_kl,
    reverse_kl,
)
from distillspec.divergence.lk import (
    fused_lk_alpha,
    fused_lk_lambda,
    lk_alpha,
    lk_lambda,
)
from distillspec.divergence.total_variation import fused_total_variation, total_variation
from distillspec.errors import DistillSpecError


class Divergence(NamedTuple):
    """A divergence in two forms that agree to rounding.

    Attributes:
        name: Its name in recipes.
        reference: The readable form: p_logits, q_logits [..., V] -> [...], differentiable by
            autograd. Use it to check a result, or if all logits fit into memory.
        fused: Value and gradient in one pass over a block. It takes p and q at N positions and a
            buffer [N, V] for the gradient in q's logits. Training uses it through
            `row_pass.weighted_sums`.
    """

    name: str
    reference: Callable[[Tensor, Tensor], Tensor]
    fused: Callable[[Distribution, Distribution, Tensor], ValueAndGradient]


class DivergenceSettings(NamedTuple):
    """Parameters of single divergences.

    Attributes:
        jsd_weight: beta of JSD[beta], the target's weight, in (0, 1).
        lk_eta: eta of LK-lambda, at least 0.
    """

    jsd_weight: float = 0.5
    lk_eta: float = 3.0


DIVERGENCES: dict[str, Callable[[DivergenceSettings], Divergence]] = {
    "forward_kl": lambda _: Divergence("forward_kl", forward_kl, fused_forward_kl),
    "reverse_kl": lambda _: Divergence("reverse_kl", reverse_kl, fused_reverse_kl),
    "jsd": lambda settings: Divergence(
        "jsd",
        partial(jensen_shannon, jsd_weight=settings.jsd_weight),
        partial(fused_jensen_shannon, jsd_weight=settings.jsd_weight),
    ),
    "tvd": lambda _: Divergence("tvd", total_variation, fused_total_variation),
    "lk_alpha": lambda _: Divergence("lk_alpha", lk_alpha, fused_lk_alpha),
    "lk_lambda": lambda settings: Divergence(
        "lk_lambda",
        partial(lk_lambda, eta=settings.lk_eta),
        partial(fused_lk_lambda, eta=settings.lk_eta),
    ),
}
"""Constructors of the divergences, by name."""


def divergence(name: str, settings: DivergenceSettings = DivergenceSettings()) -> Divergence:  # noqa: B008, a constant
    """The divergence of this name.

    Raises:
        DistillSpecError: No divergence has this name.
    """
    if name not in DIVERGENCES:
        raise DistillSpecError(
            f"unknown divergence '{name}'",
            where="distill.divergence",
            fix=f"choose one of {', '.join(DIVERGENCES)}",
        )
    assert 0.0 < settings.jsd_weight < 1.0, f"jsd_weight {settings.jsd_weight} is not in (0, 1)"
    return DIVERGENCES[name](settings)


def mixture(
    weights: Mapping[str, float],
    settings: DivergenceSettings = DivergenceSettings(),  # noqa: B008
) -> Divergence:
    """The weighted sum of several divergences.

    Args:
        weights: Weight of each divergence, by name; all positive, at least one entry.
        settings: Parameters of the divergences.
    """
    parts = [(weight, divergence(name, settings)) for name, weight in weights.items()]
    # A single divergence of weight 1 keeps its own name and needs no second buffer.
    if len(parts) == 1 and parts[0][0] == 1.0:
        return parts[0][1]

    def reference(p_logits: Tensor, q_logits: Tensor) -> Tensor:
        return torch.stack([w * part.reference(p_logits, q_logits) for w, part in parts]).sum(0)

    def fused(p: Distribution, q: Distribution, out: Tensor) -> ValueAndGradient:
        total = torch.zeros_like(q.log_partition)
        # Each part overwrites `out`, so their sum needs its own buffer.
        gradient = torch.zeros_like(out)
        for weight, part in parts:
            addend = part.fused(p, q, out)
            total += weight * addend.value
            gradient.add_(addend.gradient, alpha=weight)
        return ValueAndGradient(total, gradient)

    name = " + ".join(f"{weight:g} {part.name}" for weight, part in parts)
    return Divergence(name, reference, fused)
