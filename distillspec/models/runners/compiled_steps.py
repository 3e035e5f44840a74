"""The graphs of the compiled runner: the model as a function of one block of fixed size.

The start of the block is a tensor, and the cache is preallocated. So one graph serves every
position.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from itertools import count
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._inductor import config as inductor_config
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from distillspec.models.runners.attention import fast_single_queries
from distillspec.models.runners.cache import GrowingCache, additive_mask, is_plainly_causal
from distillspec.models.runners.eager import max_context_length
from distillspec.speculation.sampling import entropy_in_one_pass

log = logging.getLogger(__name__)

Step = Callable[..., Any]

_ON_CPU = {"freezing": True, "cpp.enable_concat_linear": True}
_ON_GPU = {"triton.cudagraphs": True}
_NUMBER = count()


class TreeInput(NamedTuple):
    """The inputs of a tree's graph.

    Attributes:
        tokens: Long [1, n].
        positions: Long [n].
        visible: Bool [n, room], which slots each node sees.
    """

    tokens: Tensor
    positions: Tensor
    visible: Tensor


class _BlockLayer(DynamicLayer):
    """A cache layer of fixed size in a graph: it writes a block and shows the complete buffer."""

    is_compileable = True
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, start: Tensor, positions: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self.is_initialized = True
        self._start = start
        self._positions = positions

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self._positions, key_states)
        self.values.index_copy_(2, self._positions, value_states)
        return self.keys, self.values

    def get_seq_length(self, *_: Any) -> Tensor:  # type: ignore[override]  # as StaticLayer's
        return self._start

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        return self.keys.shape[2], 0


def full_cache(model: PreTrainedModel, capacity: int) -> GrowingCache:
    """A cache with room for `capacity` tokens. One forward shows the number of layers and heads."""
    cache = GrowingCache()
    with torch.no_grad():
        token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        model(input_ids=token, past_key_values=cache, use_cache=True)
    cache.reserve(capacity)
    # Fixed addresses let CUDA graphs use the buffers without copying them.
    for layer in cache.layers:
        for buffer in layer.buffers:
            torch._dynamo.mark_static_address(buffer)
    return cache


def step_of(model: PreTrainedModel, cache: GrowingCache) -> Step:
    """The model as a function of a block, long [1, G], and its start (a scalar tensor)."""
    buffers = [layer.buffers for layer in cache.layers]
    capacity = buffers[0][0].shape[2]
    ready_mask = is_plainly_causal(model)
    dtype, device = model.dtype, model.device
    last_position = max_context_length(model) - 1

    def step(block: Tensor, start: Tensor) -> Tensor:
        positions = torch.arange(block.shape[1], device=device) + start
        layers: list[Any] = [
            _BlockLayer(keys, values, start, positions) for keys, values in buffers
        ]
        mask = None
        # The model reads the complete buffer. For each token the mask hides all later slots.
        if ready_mask:
            seen = torch.arange(capacity, device=device) <= positions[:, None]
            mask = additive_mask(seen[None, None], dtype)
        output = model(
            input_ids=block,
            attention_mask=mask,
            position_ids=positions.clamp(max=last_position)[None],  # padding may reach beyond it
            past_key_values=Cache(layers=layers),
            use_cache=True,
        )
        logits: Tensor = output.logits
        return logits

    return step


def entropy_step_of(model: PreTrainedModel, cache: GrowingCache, vocab_size: int) -> Step:
    """`step_of` with the entropy after the last token at a temperature (a scalar tensor)."""
    plain = step_of(model, cache)

    def step(block: Tensor, start: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        logits = plain(block, start)
        return logits, entropy_in_one_pass(logits[0, -1, :vocab_size], temperature)

    return step


def tree_step_of(model: PreTrainedModel, cache: GrowingCache) -> Step:
    """The model as a function of a tree: tokens long [1, n], start, positions, visible slots."""
    buffers = [layer.buffers for layer in cache.layers]
    dtype, device = model.dtype, model.device

    def step(tokens: Tensor, start: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        slots = torch.arange(tokens.shape[1], device=device) + start
        layers: list[Any] = [_BlockLayer(keys, values, start, slots) for keys, values in buffers]
        output = model(
            input_ids=tokens,
            attention_mask=additive_mask(visible[None, None], dtype),
            position_ids=positions[None],
            past_key_values=Cache(layers=layers),
            use_cache=True,
        )
        logits: Tensor = output.logits
        return logits

    return step


@torch.no_grad()
def compile_step(model: PreTrainedModel, step: Step, *inputs: Tensor) -> Step:
    """Compile one graph and run it, so that compiling, recording and allocating happen now."""
    options = _ON_GPU if model.device.type == "cuda" else _ON_CPU
    started = time.perf_counter()
    compiled = _without_guards(step, options)
    with (
        fast_single_queries(model, model.dtype),
        inductor_config.patch(options),
        warnings.catch_warnings(),
    ):
        # Modules that torch imports when it compiles use deprecated functions of torch.
        warnings.simplefilter("ignore", DeprecationWarning)
        # CUDA graphs: the first run warms up, the second records, the third replays.
        for _ in range(3 if model.device.type == "cuda" else 1):
            compiled(*inputs)
    log.info(
        "compiled %s for %d token(s) in %.1f s",
        type(model).__name__,
        inputs[0].shape[1],
        time.perf_counter() - started,
    )
    return compiled


def _without_guards(step: Step, options: dict[str, Any]) -> Step:
    """Compile `step` without guards, because its shapes and its model never change.

    Dynamo stores compiled code by code object, and distinguishes entries by guards, which are left
    out. So each step gets a new code object.
    """
    assert isinstance(step, FunctionType)
    name = f"step_{next(_NUMBER)}"
    renamed = FunctionType(
        step.__code__.replace(co_name=name), step.__globals__, name, None, step.__closure__
    )
    compiled: Step = torch.compile(
        renamed,
        dynamic=False,
        fullgraph=True,
        options={**options, "guard_filter_fn": lambda guards: [False] * len(guards)},
    )
    return compiled
