"""Receivers of the gradient in each block of logits: the output head, or given logits."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from distillspec.divergence.distribution import Distribution
from distillspec.divergence.logit_rows import ProjectedLogits, multiply, spans

_PRODUCT_ELEMENTS = 2**20


class LogitGradients(Protocol):
    """Takes the gradient in the tempered logits, block by block, in the order of the rows."""

    def take(self, block: slice, q: Distribution, gradient: Tensor) -> None:
        """Take the gradient of the rows `block`.

        Args:
            block: n rows of the loaded chunk.
            q: The draft's distributions of these rows.
            gradient: d divergence / d q.logits, [n, V]. The receiver may change it and must copy
                it: the next block reuses its memory.
        """

    def finish(self, chunk: slice) -> None:
        """Called after the last block of `chunk`."""


class HeadGradients:
    """Carries gradients through the draft's head to its hidden states, weight and bias.

    The gradient G overwrites the logits in their buffer. Two matrix products read it before the
    next chunk. The row weights w multiply the narrow factor of each product, w (G W) and G^T (w h).

    Attributes:
        hidden: Gradient of the hidden states that count, [M, H]; None if not asked for.
        weight: Gradient of the head's weight, [V, H]; None if not asked for.
        bias: Gradient of the head's bias, [V]; None if not asked for.
    """

    def __init__(
        self, logits: ProjectedLogits, weights: Tensor, *, hidden: bool, weight: bool, bias: bool
    ) -> None:
        self._logits = logits
        products, dtype, precision = logits.products, logits.hidden.dtype, weights.dtype
        # d (scale / temperature * product) / d product, and the weight of the row: [N, 1]
        self._factors = (weights * (logits.head.scale / logits.temperature)).unsqueeze(-1)
        # The products of `finish` need the dtype of the hidden states.
        # If the logits are wider, the gradient gets a second buffer.
        self._gradient = (
            products if products.dtype == dtype else torch.empty_like(products, dtype=dtype)
        )
        self.hidden = (
            logits.hidden.new_zeros(logits.hidden.shape, dtype=precision) if hidden else None
        )
        self.weight = (
            logits.weight.new_zeros(logits.weight.shape, dtype=precision) if weight else None
        )
        self.bias = (
            logits.weight.new_zeros(logits.weight.shape[0], dtype=precision) if bias else None
        )

    def take(self, block: slice, q: Distribution, gradient: Tensor) -> None:
        """Apply the soft cap's slope 1 - (z / softcap)^2, add to the bias, copy for `finish`."""
        head = self._logits.head
        if head.softcap is not None:
            capped = q.logits * (self._logits.temperature / head.softcap)
            gradient.addcmul_(gradient, capped.square_(), value=-1.0)
        # The bias is inside the soft cap, so this comes after the slope.
        # Its sum takes the gradient before `copy_` rounds it.
        if self.bias is not None:
            self.bias.addmv_(gradient.t(), self._factors[block].squeeze(-1))
        self._gradient[self._logits.local(block)].copy_(gradient)

    def formed(
        self, states: Tensor, rows: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of hidden states [N, H], weight and bias; 0 in rows that do not count."""
        if self.hidden is None or rows is None:
            return self.hidden, self.weight, self.bias
        hidden = self.hidden.new_zeros(states.shape)
        hidden[rows] = self.hidden
        return hidden, self.weight, self.bias

    def finish(self, chunk: slice) -> None:
        """Multiply the chunk's gradient into hidden states and weight."""
        hidden, factors = self._logits.hidden[chunk], self._factors[chunk]
        gradient = self._gradient[: hidden.shape[0]]
        if self.hidden is not None:
            product = torch.mm(gradient, self._logits.weight)
            torch.mul(product, factors, out=self.hidden[chunk])
        if self.weight is not None:
            accumulate(self.weight, gradient.t(), (hidden * factors).to(hidden.dtype))


class GivenGradients:
    """Writes gradients into `logits`, a tensor of the given logits' shape and dtype."""

    def __init__(
        self, logits: Tensor, rows: Tensor | None, weights: Tensor, temperature: float
    ) -> None:
        self._rows = rows
        self._factors = (weights / temperature).unsqueeze(-1)
        # `take` writes every row that counts; only the others need zeros.
        self.logits = torch.empty_like(logits) if rows is None else torch.zeros_like(logits)

    def take(self, block: slice, q: Distribution, gradient: Tensor) -> None:
        """Store the gradient, scaled by weight / temperature."""
        gradient.mul_(self._factors[block])
        self.logits[block if self._rows is None else self._rows[block]] = gradient.to(
            self.logits.dtype
        )

    def formed(self, states: Tensor, rows: Tensor | None) -> tuple[Tensor, None, None]:
        """The gradient of the logits, [N, V]; 0 in rows that do not count."""
        return self.logits, None, None

    def finish(self, chunk: slice) -> None:
        """Nothing to do: `take` has written the gradient."""


def accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to `total`, whose dtype may be wider than that of the factors.

    A CPU multiplies bfloat16 into bfloat16 only. So each product is rounded once and then added in
    float32, in pieces that stay in the cache.

    Args:
        total: [M, H], changed in place.
        a: [M, n].
        b: [n, H].
    """
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.is_cuda and total.dtype == torch.float32:
        # A GPU adds half-precision products to a float32 sum in one call.
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        rows = max(1, min(total.shape[0], _PRODUCT_ELEMENTS // total.shape[1]))
        room = total.new_empty(rows, total.shape[1], dtype=a.dtype)
        for part in spans(0, total.shape[0], rows):
            piece = room[: part.stop - part.start]
            multiply(a[part], b, piece)
            total[part].add_(piece)
