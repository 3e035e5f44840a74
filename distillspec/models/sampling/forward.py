"""A model as a function over a batch with a cache, and the reading of prompts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from distillspec.models.bare import bare_model
from distillspec.models.runners.attention import fast_single_queries
from distillspec.models.runners.cache import GrowingCache, is_plainly_causal
from distillspec.models.surgery.hidden_states import is_sharded

# Prompts are read this many tokens at a time, padding included: enough to keep the device busy.
_TOKENS_READ_AT_ONCE = {"cpu": 2048}
_TOKENS_READ_AT_ONCE_ELSEWHERE = 32768


class Forward(NamedTuple):
    """The model as a function of tokens, cache, mask and positions.

    Attributes:
        model: The model, possibly wrapped.
        weights: Weights that were cast for autocast, or None.
        keeps_last: Whether the model can compute logits of the last position only.
        takes_ready_mask: Whether it accepts a prepared mask [B, 1, G, L].
        tokens_at_once: Tokens of prompts that are read in one call.
        device: Device of the model.
        dtype: Type of the computation.
    """

    model: nn.Module
    weights: dict[str, Tensor] | None
    keeps_last: bool
    takes_ready_mask: bool
    tokens_at_once: int
    device: torch.device
    dtype: torch.dtype

    def __call__(
        self, tokens: Tensor, cache: GrowingCache, mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """Logits of the last position: long [B, T] -> [B, V]."""
        inputs = self._inputs(tokens, cache, mask, positions)
        if self.keeps_last:
            inputs["logits_to_keep"] = 1
            # A slice of the last states has gaps between its rows. For these, torch on a CPU copies
            # a frozen head's weight once per row: 3 GB for 51 rows of SmolLM2. An index has none.
            if tokens.device.type == "cpu" and tokens.shape[1] > 1:
                inputs["logits_to_keep"] = torch.tensor([tokens.shape[1] - 1])
        return self._output(inputs)[:, -1]

    def logits(
        self, tokens: Tensor, cache: GrowingCache, mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """Logits of all positions: long [B, T] -> [B, T, V]."""
        return self._output(self._inputs(tokens, cache, mask, positions))

    def states(
        self, tokens: Tensor, cache: GrowingCache, mask: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """Hidden states before the output head: long [B, T] -> [B, T, H].

        Not available with cast weights.
        """
        assert self.weights is None
        backbone = bare_model(self.model).base_model
        states: Tensor = backbone(**self._inputs(tokens, cache, mask, positions)).last_hidden_state
        return states

    @staticmethod
    def _inputs(
        tokens: Tensor, cache: GrowingCache, mask: Tensor | None, positions: Tensor | None
    ) -> dict[str, Any]:
        return {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
        }

    def _output(self, inputs: dict[str, Any]) -> Tensor:
        logits: Tensor = self.run(inputs).logits
        return logits

    def run(self, inputs: dict[str, Any]) -> Any:
        """The model's complete output for its own arguments."""
        if self.weights is None:
            return self.model(**inputs)
        return functional_call(self.model, self.weights, kwargs=inputs)


@contextmanager
def forward_of(model: nn.Module) -> Iterator[Forward]:
    """Within this context the model is in eval mode; then its modes are restored.

    Under autocast, the weights are cast once instead of once per call.
    """
    bare = bare_model(model)
    device = bare.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else bare.dtype
    weights = None
    # Sharded weights cannot be cast once: for them autocast stays on.
    if autocast and not is_sharded(bare):
        weights = {name: weight.to(dtype) for name, weight in model.named_parameters()}
    signature = inspect.signature(bare.forward).parameters
    takes_ready_mask = is_plainly_causal(bare)  # before its attention is replaced
    with (
        _eval_mode(model),
        torch.autocast(device.type, dtype=dtype, enabled=autocast and weights is None),
        fast_single_queries(bare, dtype),
    ):
        yield Forward(
            model=model,
            weights=weights,
            keeps_last="logits_to_keep" in signature,
            takes_ready_mask=takes_ready_mask,
            tokens_at_once=_TOKENS_READ_AT_ONCE.get(device.type, _TOKENS_READ_AT_ONCE_ELSEWHERE),
            device=device,
            dtype=dtype,
        )


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True


def read_prompts(forward: Forward, texts: list[Tensor], room: int) -> GrowingCache:
    """A cache that holds each row's text, padded on the left, with room for more tokens.

    Texts of similar length are read in one group, with padding on the right. This costs little and
    needs no mask. Then their keys and values are moved to the right end.

    Args:
        forward: The model.
        texts: Long [t] each, by ascending length; a text may be empty.
        room: Further tokens that the cache can hold.
    """
    lengths = [len(text) for text in texts]
    longest = lengths[-1]
    buffers: list[tuple[Tensor, Tensor]] = []
    for group in _groups(lengths, forward.tokens_at_once):
        # 1. Read a group, padded on the right: no real token sees the padding.
        tokens = pad_sequence([texts[row] for row in group], batch_first=True)
        cache = GrowingCache()
        forward(tokens, cache, None, None)
        # 2. The first group shows the layers and their shapes.
        if not buffers:
            buffers = [
                (_room(keys, len(texts), longest + room), _room(values, len(texts), longest + room))
                for keys, values in ((layer.keys, layer.values) for layer in cache.layers)
            ]
        # 3. Move each row to the right end, without its padding.
        for layer, pair in zip(cache.layers, buffers, strict=True):
            for states, buffer in zip((layer.keys, layer.values), pair, strict=True):
                for index, row in enumerate(group):
                    length = lengths[row]
                    buffer[row, :, longest - length : longest] = states[index, :, :length]
    return GrowingCache.of(buffers, longest)


def _groups(lengths: Sequence[int], tokens: int) -> Iterable[list[int]]:
    """Rows that are not empty, in groups of at most `tokens` tokens including padding."""
    group: list[int] = []
    for row, length in enumerate(lengths):
        if length == 0:
            continue
        # Lengths ascend, so this row sets the length of the group.
        if group and (len(group) + 1) * length > tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _room(states: Tensor, rows: int, capacity: int) -> Tensor:
    """Zeros [rows, heads, capacity, dim] in the type of states [B, heads, T, dim]."""
    return states.new_zeros(rows, states.shape[1], capacity, states.shape[3])
