"""Rows of logits, one chunk at a time: projected from hidden states, or read from given logits.

A *chunk* is the rows of one matrix product. A *block* is the part of a chunk that softmax and
divergence process in one pass; on a CPU it fits into the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distillspec.divergence.distribution import Distribution, distribution
from distillspec.divergence.head import OutputHead

# Logits of a block: 2^17 in float32 are 512 KiB, which a CPU's cache holds.
_BLOCK_ELEMENTS_CPU = 2**17
_BLOCK_ELEMENTS_DEVICE = 2**25
_HALF_PRECISION = (torch.bfloat16, torch.float16)


class ModelRows(NamedTuple):
    """N rows of one model: hidden states with their head, or logits that the model has computed.

    Give hidden states if the head is a plain matrix: they are projected one chunk at a time. Give
    logits if the head does more, has adapters, or is sharded over processes.

    Attributes:
        states: Hidden states [N, H], or logits [N, V] if there is no head.
        head: The output head of the hidden states.
    """

    states: Tensor
    head: OutputHead | None = None

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens that are scored."""
        return self.states.shape[-1] if self.head is None else self.head.vocab_size

    def trimmed(self, vocab_size: int) -> ModelRows:
        """The same rows over the first `vocab_size` tokens; unchanged if V is not larger."""
        if self.vocab_size <= vocab_size:
            return self
        if self.head is None:
            return ModelRows(self.states[:, :vocab_size])
        return self._replace(head=self.head.trimmed(vocab_size))

    def only(self, tokens: Tensor) -> ModelRows:
        """The same rows over `tokens` only, long [K], in their order."""
        if self.head is None:
            return ModelRows(self.states[:, tokens])
        return self._replace(head=self.head.only(tokens))


class RowPlan(NamedTuple):
    """How the rows of one call are processed.

    Attributes:
        rows: Indices of the rows that count, long [M]; None if all N count.
        weights: Weight of each row, [N].
        temperature: Divides the logits of both models.
        chunk_rows: Rows of one matrix product.
        precision: Dtype of softmax, divergence and sums.
    """

    rows: Tensor | None
    weights: Tensor
    temperature: float
    chunk_rows: int
    precision: torch.dtype

    @classmethod
    def even(cls, temperature: float, chunk_rows: int, *states: Tensor) -> RowPlan:
        """A plan in which every row of the `states` counts, with weight 1."""
        precision = wide_precision(*states)
        weights = torch.ones(states[0].shape[0], dtype=precision, device=states[0].device)
        return cls(None, weights, temperature, chunk_rows, precision)

    def of(self, tensor: Tensor) -> Tensor:
        """The rows that count: [N, ...] -> [M, ...]."""
        return tensor if self.rows is None else tensor[self.rows]

    def logits(self, model: ModelRows) -> ProjectedLogits | GivenLogits:
        """The model's logits, one chunk at a time.

        Products use autocast's dtype if autocast is on. So call this outside of blocks that turn
        autocast off.
        """
        if model.head is None:
            return GivenLogits(
                model.states, self.rows, precision=self.precision, temperature=self.temperature
            )
        return ProjectedLogits(
            self.of(model.states.detach()),
            model.head,
            dtype=product_dtype(model.states),
            precision=self.precision,
            temperature=self.temperature,
            chunk_rows=self.chunk_rows,
        )


class LogitRows(Protocol):
    """N rows of logits, one chunk at a time."""

    vocab_size: int

    def load(self, chunk: slice) -> None:
        """Compute the rows `chunk`, which replace the chunk before."""

    def distribution(self, block: slice) -> Distribution:
        """softmax(logits / temperature) of the rows `block` of the chunk.

        The next call overwrites its tensors.
        """


def spans(start: int, stop: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` rows that cover start..stop in order."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def block_rows(vocab_size: int, device: torch.device) -> int:
    """Rows of a block whose rows have V logits."""
    elements = _BLOCK_ELEMENTS_CPU if device.type == "cpu" else _BLOCK_ELEMENTS_DEVICE
    return max(1, elements // vocab_size)


def product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype in which `hidden` is multiplied: autocast's if it is on, else that of `hidden`."""
    device = hidden.device.type
    # Autocast never lowers float64.
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def wide_precision(*tensors: Tensor) -> torch.dtype:
    """float32, or float64 if any of the tensors is float64."""
    precision = torch.float32
    for tensor in tensors:
        precision = torch.promote_types(precision, tensor.dtype)
    return precision


class ProjectedLogits:
    """Logits of hidden states [N, H] under an output head, in one reused buffer [chunk, V].

    On a CPU torch rounds products of bfloat16 to bfloat16, as in the model's own forward. On a GPU
    they stay in float32.
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
        stored = torch.float32 if hidden.is_cuda and dtype in _HALF_PRECISION else dtype
        self.products = hidden.new_empty(rows, self.vocab_size, dtype=stored)
        self._room = _Room(self.vocab_size, hidden.device, precision, rows)
        self._bias = None if head.bias is None else head.bias.detach().to(precision)
        self._first = 0

    def load(self, chunk: slice) -> None:
        """Compute hidden @ weight^T of the rows `chunk` into `products`."""
        self._first = chunk.start
        hidden = self.hidden[chunk]
        multiply(hidden, self.weight.t(), self.products[: hidden.shape[0]])

    def local(self, block: slice) -> slice:
        """Position of the rows `block` in `products`."""
        return slice(block.start - self._first, block.stop - self._first)

    def distribution(self, block: slice) -> Distribution:
        """Apply bias, scale, soft cap and temperature in float32, then the softmax."""
        products = self.products[self.local(block)]
        head, factor = self.head, self.head.scale / self.temperature
        # The products are the logits themselves: no copy is needed.
        plain = self._bias is None and head.softcap is None and factor == 1.0
        if plain and products.dtype == self._room.precision:
            return self._room.distribution(products)
        logits = self._room.logits(products)
        if self._bias is not None:
            logits.add_(self._bias)
        # The bias holds for unscaled products, so the scale is a part of the next factor.
        if head.softcap is not None:
            logits.mul_(head.scale / head.softcap).tanh_()
            logits.mul_(head.softcap / self.temperature)
        elif factor != 1.0:
            logits.mul_(factor)
        return self._room.distribution(logits)


class GivenLogits:
    """Logits that a model has computed itself, [N, V].

    `rows`, long [M], are the indices of those that count; None if all count.
    """

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
        """Nothing to compute."""

    def distribution(self, block: slice) -> Distribution:
        """Apply the temperature in float32, then the softmax; the given logits do not change."""
        logits = self.source[block if self.rows is None else self.rows[block]]
        # Softmax does not change its input, so plain logits need no copy.
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
        """A copy of `source` in this precision, which the caller may change."""
        # Made at first use: plain logits never need it.
        if self._logits is None:
            self._logits = torch.empty_like(self._probability)
        return self._logits[: source.shape[0]].copy_(source)

    def distribution(self, logits: Tensor) -> Distribution:
        return distribution(logits, out=self._probability[: logits.shape[0]])


def multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out = a @ b. A float32 `out` for half-precision factors works on a GPU only."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
