"""A preallocated key-value cache that is rolled back by changing its length.

Every layer keeps all its past, including sliding-window layers. The mask makes their windows, so
any number of tokens can be rolled back. Models with a running state as memory are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from distillspec.recipe.rolls_back import ROLLS_BACK, refuse_memory


class GrowingLayer(DynamicLayer):
    """A layer whose `keys` and `values` [B, heads, length, dim] are views of larger buffers."""

    keys: Tensor
    values: Tensor
    _key_buffer: Tensor
    _value_buffer: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        # Empty views of the right type; `update` reserves memory at once.
        self._key_buffer = key_states[:, :, :0]
        self._value_buffer = value_states[:, :, :0]
        self.keys, self.values = self._key_buffer, self._value_buffer
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self._key_buffer.shape[2]:
            # Grow by half, so that copying costs a constant time per token on average.
            self.reserve(end + max(128, end // 2))
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self.keep(end)
        return self.keys, self.values

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """The complete buffers of keys and values, [B, heads, capacity, dim].

        They keep their address until `reserve` is called.
        """
        return self._key_buffer, self._value_buffer

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, length: int) -> GrowingLayer:
        """A layer in buffers [B, heads, capacity, dim] that holds their first `length` tokens."""
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer._key_buffer, layer._value_buffer = keys, values
        layer.keep(length)
        return layer

    def reserve(self, capacity: int) -> None:
        """Move into buffers of `capacity` tokens."""
        self._key_buffer = _enlarged(self.keys, capacity)
        self._value_buffer = _enlarged(self.values, capacity)
        self.keep(self.keys.shape[2])

    def keep(self, length: int) -> None:
        """Hold the first `length` tokens; no data moves."""
        self.keys = self._key_buffer[:, :, :length]
        self.values = self._value_buffer[:, :, :length]

    def keep_slots(self, length: int, slots: Tensor) -> None:
        """Keep the first `length` tokens, then move those in `slots` (long [n]) behind them."""
        end = length + len(slots)
        for buffer in (self._key_buffer, self._value_buffer):
            # Indexing by a tensor copies first, so overlapping slots are safe.
            buffer[:, :, length:end] = buffer[:, :, slots]
        self.keep(end)

    def keep_columns(self, columns: Tensor) -> None:
        """Keep for each row its own tokens (long [B, n], ascending), in this order."""
        count = columns.shape[1]
        for buffer in (self._key_buffer, self._value_buffer):
            index = columns[:, None, :, None].expand(-1, buffer.shape[1], -1, buffer.shape[3])
            buffer[:, :, :count] = buffer.gather(2, index)
        self.keep(count)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep the sequences `rows` (long [B'], ascending), moved to the front of the batch."""
        length = self.keys.shape[2]
        for buffer in (self._key_buffer, self._value_buffer):
            # Indexing copies first, so no row is overwritten before it is read.
            buffer[: len(rows), :, :length] = buffer[rows, :, :length]
        self._key_buffer = self._key_buffer[: len(rows)]
        self._value_buffer = self._value_buffer[: len(rows)]
        self.keep(length)


def _enlarged(states: Tensor, capacity: int) -> Tensor:
    """A buffer [B, heads, capacity, dim] that starts with `states` [B, heads, length, dim]."""
    buffer = states.new_zeros((*states.shape[:2], capacity, states.shape[3]))
    buffer[:, :, : states.shape[2]] = states
    return buffer


class GrowingCache(Cache):
    """A cache of `GrowingLayer`s, created when the model's layers ask for them."""

    layers: list[GrowingLayer]  # type: ignore[assignment]  # only these layers are created

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` tokens in every layer used so far; the content stays."""
        for layer in self.layers:
            layer.reserve(capacity)

    @classmethod
    def of(cls, buffers: Sequence[tuple[Tensor, Tensor]], length: int) -> GrowingCache:
        """A cache in these buffers (keys, values) of each layer, [B, heads, capacity, dim]."""
        cache = cls()
        cache.layers += [GrowingLayer.of(keys, values, length) for keys, values in buffers]
        return cache

    @property
    def rows(self) -> int:
        """Number of sequences; 0 before the first token."""
        return self.layers[0].keys.shape[0] if self.layers else 0

    def repeated(self, rows: int) -> GrowingCache:
        """A copy of the only row in each of `rows` rows."""
        held = self.get_seq_length()
        return GrowingCache.of(
            [
                (layer.keys.repeat(rows, 1, 1, 1), layer.values.repeat(rows, 1, 1, 1))
                for layer in self.layers
            ],
            held,
        )

    def one_row(self, row: int, length: int) -> GrowingCache:
        """A copy of the first `length` tokens of one row."""
        return GrowingCache.of(
            [
                (
                    layer.keys[row : row + 1, :, :length].clone(),
                    layer.values[row : row + 1, :, :length].clone(),
                )
                for layer in self.layers
            ],
            length,
        )

    def keep(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        for layer in self.layers:
            layer.keep(length)

    def keep_slots(self, length: int, slots: Tensor) -> None:
        """Keep the first `length` tokens, then move those in `slots` (long [n]) behind them."""
        for layer in self.layers:
            layer.keep_slots(length, slots)

    def keep_columns(self, columns: Tensor) -> None:
        """Keep for each row its own tokens (long [B, n], ascending), in this order."""
        for layer in self.layers:
            layer.keep_columns(columns)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep the sequences `rows` (long [B'], ascending) of the batch."""
        for layer in self.layers:
            layer.keep_rows(rows)


def check_rolls_back(model: PreTrainedModel) -> None:
    """Raise DistillSpecError for a model whose past cannot be rolled back by tokens."""
    config = model.config.get_text_config(decoder=True)
    layer_types = set(getattr(config, "layer_types", None) or ()) - ROLLS_BACK
    if model._is_stateful or layer_types:
        name = type(model).__name__
        refuse_memory(name, sorted(layer_types), str(model.name_or_path or name))


def is_plainly_causal(model: PreTrainedModel) -> bool:
    """Whether one mask serves all layers: the model accepts a prepared mask [B, 1, G, L]."""
    config = model.config.get_text_config(decoder=True)
    layer_types = getattr(config, "layer_types", None)
    plain = (
        set(layer_types) == {"full_attention"}
        if layer_types
        else getattr(config, "sliding_window", None) is None
        and getattr(config, "attention_chunk_size", None) is None
    )
    return bool(
        plain
        and not model.config.is_encoder_decoder
        and model._supports_attention_backend
        and config._attn_implementation in ("sdpa", "eager")
    )


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask: 0 where `visible` is True, else the lowest number of `dtype`."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)
