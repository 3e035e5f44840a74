"""Rows of logits that exist a chunk at a time: projected from hidden states, or cut from logits.

A *chunk* is what one matrix product makes. A *block* is the part of it that one pass of softmax
and divergence works on: on a CPU small enough to stay in its cache, whatever the chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from distillspec.divergence.distribution import Distribution, distribution
from distillspec.divergence.head import OutputHead

_BLOCK_ELEMENTS_CPU = 2**17
_BLOCK_ELEMENTS_DEVICE = 2**25
_HALF_PRECISION = (torch.bfloat16, torch.float16)


class LogitRows(Protocol):
    """N rows of logits, a chunk at a time."""

    vocab_size: int

    def load(self, chunk: slice) -> None:
        """Make rows `chunk` available, in place of the chunk before."""

    def distribution(self, block: slice) -> Distribution:
        """softmax(logits / temperature) of rows `block`, inside the chunk; valid until the next."""


def spans(start: int, stop: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` that cover start..stop in order."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def block_rows(vocab_size: int, device: torch.device) -> int:
    """Rows of a block of V logits each."""
    elements = _BLOCK_ELEMENTS_CPU if device.type == "cpu" else _BLOCK_ELEMENTS_DEVICE
    return max(1, elements // vocab_size)


def product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype in which `hidden` is multiplied: autocast's where it is on, else its own."""
    kind = hidden.device.type
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return hidden.dtype


class ProjectedLogits:
    """Logits of hidden states [N, H] under an output head, in one reused buffer [chunk, V].

    On a CPU products of bfloat16 come out rounded to bfloat16 (torch has no other there), as in the
    model's own forward; on a GPU they are kept in float32.
    """

    def __init__(
        self,
        hidden: Tensor,
        head: OutputHead,
        *,
        dtype: torch.dtype,
        precision: torch.dtype,
        temperature: float,
        chunk_rows: int,
    ) -> None:
        self.hidden = hidden.detach().to(dtype)
        self.weight = head.weight.detach().to(dtype)
        self.head = head
        self.temperature = temperature
        self.vocab_size = head.vocab_size
        rows = min(chunk_rows, hidden.shape[0])
        kept = torch.float32 if hidden.is_cuda and dtype in _HALF_PRECISION else dtype
        self.products = hidden.new_empty(rows, self.vocab_size, dtype=kept)
        self._room = _Room(self.vocab_size, hidden.device, precision, rows)
        self._bias = None if head.bias is None else head.bias.detach().to(precision)
        self._first = 0

    def load(self, chunk: slice) -> None:
        """hidden @ weight^T of rows `chunk`, into `products`."""
        self._first = chunk.start
        hidden = self.hidden[chunk]
        multiply(hidden, self.weight.t(), self.products[: hidden.shape[0]])

    def local(self, block: slice) -> slice:
        """Where rows `block` lie in `products`."""
        return slice(block.start - self._first, block.stop - self._first)

    def distribution(self, block: slice) -> Distribution:
        """Bias, scale, soft cap and temperature, in float32, then the softmax."""
        products = self.products[self.local(block)]
        head, factor = self.head, self.head.scale / self.temperature
        plain = self._bias is None and head.softcap is None and factor == 1.0
        if plain and products.dtype == self._room.precision:
            return self._room.distribution(products)
        logits = self._room.logits(products)
        if self._bias is not None:
            logits.add_(self._bias)
        if head.softcap is not None:
            logits.mul_(head.scale / head.softcap).tanh_()
            logits.mul_(head.softcap / self.temperature)
        elif factor != 1.0:
            logits.mul_(factor)
        return self._room.distribution(logits)


class GivenLogits:
    """Logits that a model has made itself: [N, V], of which `rows` (long [M]; None: all) count."""

    def __init__(
        self,
        logits: Tensor,
        rows: Tensor | None,
        *,
        precision: torch.dtype,
        temperature: float,
    ) -> None:
        self.source = logits.detach()
        self.rows = rows
        self.temperature = temperature
        self.vocab_size = logits.shape[1]
        self._room = _Room(logits.shape[1], logits.device, precision, logits.shape[0])

    def load(self, chunk: slice) -> None:
        """Nothing to make."""

    def distribution(self, block: slice) -> Distribution:
        """Temperature, in float32, then the softmax; the logits given stay as they are."""
        logits = self.source[block if self.rows is None else self.rows[block]]
        if self.temperature != 1.0 or logits.dtype != self._room.precision:
            logits = self._room.logits(logits).div_(self.temperature)
        return self._room.distribution(logits)


class _Room:
    """Memory for a block's logits and probabilities, reused from block to block."""

    def __init__(
        self, vocab_size: int, device: torch.device, precision: torch.dtype, rows: int
    ) -> None:
        self.precision = precision
        shape = (min(rows, block_rows(vocab_size, device)), vocab_size)
        self._probability = torch.empty(shape, dtype=precision, device=device)
        self._logits: Tensor | None = None

    def logits(self, source: Tensor) -> Tensor:
        """A copy of `source` in the precision of the maths, that may be changed."""
        if self._logits is None:
            self._logits = torch.empty_like(self._probability)
        return self._logits[: source.shape[0]].copy_(source)

    def distribution(self, logits: Tensor) -> Distribution:
        return distribution(logits, out=self._probability[: logits.shape[0]])


def multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out = a @ b; `out` in float32 for half-precision factors works on a GPU only."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
