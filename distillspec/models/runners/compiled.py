"""The compiled runner: blocks of a few fixed sizes and a preallocated cache.

Each block size is one graph, compiled when the runner is made. A shorter block is padded to the
next size; the padding is masked and overwritten later. Longer texts (prompts) are read without
compilation, into the same cache. On a CPU the graph contains the packed weights (inductor's
freezing). So a runner belongs to one set of weights: make a new runner after further training.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from transformers import PreTrainedModel

from distillspec.models.runners.cache import additive_mask, check_rolls_back, is_plainly_causal
from distillspec.models.runners.compiled_steps import (
    TreeInput,
    compile_step,
    entropy_step_of,
    full_cache,
    step_of,
    tree_step_of,
)
from distillspec.models.runners.cross_tokenizer import CrossTokenizerRunner
from distillspec.models.runners.eager import CausalRunner, max_context_length, vocabulary_size
from distillspec.models.runners.encoder_decoder import is_encoder_decoder
from distillspec.models.runners.tree_batch import eager_runner, runner_for_trees
from distillspec.models.runners.tree_mask import TreePaths, check_takes_a_tree
from distillspec.models.vocabulary.cross_tokenizer import token_map_of
from distillspec.speculation.runner import Runner

log = logging.getLogger(__name__)


def make_runner(
    model: PreTrainedModel,
    kind: Literal["eager", "compiled"],
    capacity: int,
    block_sizes: Sequence[int],
    *,
    tree_sizes: Sequence[int] = (),
    computes_entropy: bool = False,
    vocab_size: int | None = None,
    prompts: Iterable[Sequence[int]] = (),
) -> Runner:
    """A runner for one sequence; eager, with a warning, if the model cannot be compiled.

    A draft with another tokenizer gets a `CrossTokenizerRunner` over the target's tokens. Its cache
    has at least twice the capacity, because its own tokens may be shorter.

    Args:
        model: The model, in eval mode.
        kind: "eager" or "compiled".
        capacity: Tokens of the longest text.
        block_sizes: Numbers of tokens fed at once that get a graph.
        tree_sizes: The same for trees; empty if no trees are fed. A model that makes its own masks
            reads trees eagerly.
        computes_entropy: Whether a stop rule needs the entropy after each token; only graphs
            compute it.
        vocab_size: Logits are trimmed to this many tokens.
        prompts: The prompts that will be decoded, if known; they set the capacity of a draft with
            another tokenizer.
    """
    token_map = token_map_of(model)
    if token_map is not None:
        draft_capacity = min(token_map.places(prompts, capacity), max_context_length(model))
        own = _own_runner(
            model, kind, draft_capacity, block_sizes, tree_sizes, computes_entropy=False
        )
        return CrossTokenizerRunner(own, token_map)
    return _own_runner(
        model,
        kind,
        capacity,
        block_sizes,
        tree_sizes,
        computes_entropy=computes_entropy,
        vocab_size=vocab_size,
    )


def _own_runner(
    model: PreTrainedModel,
    kind: Literal["eager", "compiled"],
    capacity: int,
    block_sizes: Sequence[int],
    tree_sizes: Sequence[int],
    *,
    computes_entropy: bool,
    vocab_size: int | None = None,
) -> Runner:
    """A runner over the model's own tokens."""
    if tree_sizes and not is_plainly_causal(model):
        return runner_for_trees(model, vocab_size=vocab_size)
    if kind == "eager":
        return eager_runner(model, vocab_size=vocab_size)
    if is_encoder_decoder(model):
        log.warning("%s has an encoder: its decoding is not compiled", type(model).__name__)
        return eager_runner(model, vocab_size=vocab_size)
    if not compiler_available():
        log.warning("no C++ compiler found (CXX, g++): decoding runs eagerly, about half as fast")
        return CausalRunner(model, vocab_size=vocab_size)
    try:
        return CompiledRunner(
            model,
            capacity,
            block_sizes,
            tree_sizes=tree_sizes,
            computes_entropy=computes_entropy,
            vocab_size=vocab_size,
        )
    except TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        log.warning("%s cannot be compiled (%s): it runs eagerly", type(model).__name__, reason)
        return CausalRunner(model, vocab_size=vocab_size)


def compiler_available() -> bool:
    """Whether torch finds a C++ compiler, which compiled runners need."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


class CompiledRunner:
    """`speculation.runner.Runner` over one sequence of at most `capacity` tokens.

    Args:
        model: The model, in eval mode.
        capacity: Tokens of the longest text.
        block_sizes: Numbers of tokens fed at once that are compiled, such as 1 and gamma + 1.
        tree_sizes: The same for `feed_tree`, padded in the same way; larger trees run uncompiled.
        computes_entropy: Compile one more graph, for `feed_for_entropy`.
        vocab_size: Logits are trimmed to this many tokens (default: the model's own size).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        capacity: int,
        block_sizes: Sequence[int],
        *,
        tree_sizes: Sequence[int] = (),
        computes_entropy: bool = False,
        vocab_size: int | None = None,
    ) -> None:
        check_rolls_back(model)
        assert not model.training, (
            "dropout would change the distribution: put the model in eval mode"
        )
        assert block_sizes and min(block_sizes) >= 1
        self.vocab_size: int = vocab_size or vocabulary_size(model)
        self.capacity = capacity
        self.positions: int = max_context_length(model)
        self.length = 0
        self._model = model
        self._device = model.device
        self._sizes, self._tree_sizes = sorted(set(block_sizes)), sorted(set(tree_sizes))
        # A padded block may reach beyond the capacity.
        room = capacity + max(*self._sizes, *self._tree_sizes, 1)
        self._cache = full_cache(model, room)
        self._paths = TreePaths()
        self._takes_a_tree = is_plainly_causal(model)
        self._start = torch.zeros((), dtype=torch.long, device=self._device)
        self._compile_blocks()
        self.computes_entropy = computes_entropy
        if computes_entropy:
            self._compile_entropy()
        self._compile_trees(room)

    def _compile_blocks(self) -> None:
        self._blocks = [self._longs(1, size) for size in self._sizes]
        self._steps = [
            compile_step(self._model, step_of(self._model, self._cache), block, self._start)
            for block in self._blocks
        ]

    def _compile_entropy(self) -> None:
        self._token, self._temperature = self._longs(1, 1), torch.ones((), device=self._device)
        self._entropy_step = compile_step(
            self._model,
            entropy_step_of(self._model, self._cache, self.vocab_size),
            self._token,
            self._start,
            self._temperature,
        )

    def _compile_trees(self, room: int) -> None:
        self._trees = [
            TreeInput(
                self._longs(1, size),
                self._longs(size),
                torch.zeros(size, room, dtype=torch.bool, device=self._device),
            )
            for size in self._tree_sizes
        ]
        self._tree_steps = [
            compile_step(
                self._model,
                tree_step_of(self._model, self._cache),
                tree.tokens,
                self._start,
                *tree[1:],
            )
            for tree in self._trees
        ]

    def reset(self) -> None:
        """Empty the cache; its memory stays allocated."""
        self.rollback(0)

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        """long [1, G] -> logits [1, G, V] after each of them, in the model's dtype."""
        size = tokens.shape[1]
        assert self.length + size <= self.capacity, "fed beyond the cache's capacity"
        # Take the smallest graph that holds the block. None holds a long prompt.
        index = bisect_left(self._sizes, size)
        if index == len(self._sizes):
            logits = self._feed_eagerly(tokens)
        else:
            block = self._blocks[index]
            # Padding keeps old tokens. Its slots are masked, and later tokens overwrite them.
            block[:, :size] = tokens
            self._start.fill_(self.length)
            logits = self._steps[index](block, self._start)
            if self._device.type == "cuda":
                logits = logits.clone()  # the next run overwrites the output
        self.length += size
        return logits[:, :size, : self.vocab_size]

    @torch.no_grad()
    def feed_for_entropy(self, token: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Feed one token, long [1, 1]; also return the entropy of softmax(logits / temperature)."""
        assert self.length < self.capacity, "fed beyond the cache's capacity"
        self._token.copy_(token)
        self._start.fill_(self.length)
        self._temperature.fill_(temperature)
        logits, entropy = self._entropy_step(self._token, self._start, self._temperature)
        if self._device.type == "cuda":
            logits, entropy = logits.clone(), entropy.clone()
        self.length += 1
        return logits[..., : self.vocab_size], entropy

    @torch.no_grad()
    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """long [n], each after the text that ends at its parent's slot -> logits [1, n, V]."""
        size = tokens.shape[0]
        assert self.length + size <= self.capacity, "fed beyond the cache's capacity"
        if not self._takes_a_tree:
            check_takes_a_tree(self._model)
        positions, visible = self._paths.add(self.length, parents)
        index = bisect_left(self._tree_sizes, size)
        if index == len(self._tree_sizes):
            mask = additive_mask(visible[None, None].to(self._device), self._model.dtype)
            logits = self._feed_eagerly(
                tokens[None], attention_mask=mask, position_ids=positions[None].to(self._device)
            )
        else:
            tree = self._trees[index]
            tree.tokens[0, :size] = tokens
            tree.positions[:size] = positions
            # The buffer still shows the last tree; padding must see nothing.
            tree.visible.zero_()
            tree.visible[:size, : self.length + size] = visible
            self._start.fill_(self.length)
            logits = self._tree_steps[index](tree.tokens, self._start, *tree[1:])
            if self._device.type == "cuda":
                logits = logits.clone()
        self.length += size
        return logits[:, :size, : self.vocab_size]

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        """Keep the first `length` slots, then `slots` as text, then `tree` as a tree after that."""
        # Taken first, because `rollback` forgets the paths.
        paths = self._paths.kept(length + len(slots), tree)
        self.rollback(length)
        moved = [*slots, *tree]
        if moved:
            self._cache.keep_slots(length, torch.tensor(moved, device=self._device))
            self._paths = paths
            self.length = length + len(moved)

    def rollback(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        assert 0 <= length <= self.length, f"rollback to {length} of {self.length}"
        self.length = length
        self._paths = TreePaths()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _feed_eagerly(self, tokens: Tensor, **inputs: Tensor) -> Tensor:
        # Graphs write into the buffers without changing the cache's own length.
        self._cache.keep(self.length)
        output = self._model(
            input_ids=tokens.to(self._device), past_key_values=self._cache, use_cache=True, **inputs
        )
        logits: Tensor = output.logits
        return logits

    def _longs(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.long, device=self._device)
