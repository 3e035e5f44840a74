"""The eager runner: a causal Hugging Face model and its cache, behind speculation's protocol."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.runners.cache import (
    GrowingCache,
    additive_mask,
    check_rolls_back,
    is_plainly_causal,
)
from distillspec.models.runners.tree_mask import TreePaths, check_takes_a_tree
from distillspec.recipe.context import UNLIMITED, ContextLength, context_of


class CausalRunner:
    """`speculation.runner.Runner` over `rows` sequences of equal length, without compilation.

    The model must be in eval mode. Its weights may change between two decodes. The cache grows.

    Args:
        model: A causal model.
        rows: Number of sequences.
        vocab_size: Logits are trimmed to this many tokens (default: the model's own size).

    Attributes:
        length: Tokens in the cache.
        positions: Tokens that the model can read.
    """

    def __init__(
        self, model: PreTrainedModel, *, rows: int = 1, vocab_size: int | None = None
    ) -> None:
        check_rolls_back(model)
        assert not model.training, (
            "dropout would change the distribution: put the model in eval mode"
        )
        self.vocab_size: int = vocab_size or vocabulary_size(model)
        self.capacity: int = UNLIMITED
        self.positions: int = max_context_length(model)
        self.length = 0
        self._model = model
        self._rows = rows
        self._device = model.device
        self._cache = GrowingCache()
        self._paths = TreePaths()
        self._takes_a_tree = is_plainly_causal(model)

    def reset(self) -> None:
        """Empty the cache; its memory stays allocated."""
        self.rollback(0)

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        """long [B, G] -> logits [B, G, V] after each of them, in the model's dtype."""
        assert tokens.shape[0] == self._rows, f"{tokens.shape[0]} rows, made for {self._rows}"
        output = self._model(
            input_ids=tokens.to(self._device), past_key_values=self._cache, use_cache=True
        )
        self.length += tokens.shape[1]
        logits: Tensor = output.logits
        return logits[..., : self.vocab_size]

    @torch.no_grad()
    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """long [n], each after the text that ends at its parent's slot -> logits [1, n, V]."""
        assert self._rows == 1, "a tree grows in one row"
        if not self._takes_a_tree:
            check_takes_a_tree(self._model)
        # Nodes of equal depth share a position, so positions are passed, not counted.
        positions, visible = self._paths.add(self.length, parents)
        output = self._model(
            input_ids=tokens[None].to(self._device),
            attention_mask=additive_mask(visible[None, None].to(self._device), self._model.dtype),
            position_ids=positions[None].to(self._device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self.length += tokens.shape[0]
        logits: Tensor = output.logits
        return logits[..., : self.vocab_size]

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        """Keep the first `length` slots, then `slots` as text, then `tree` as a tree after that."""
        moved = [*slots, *tree]
        if moved:
            self._cache.keep_slots(length, torch.tensor(moved, device=self._device))
            self._paths = self._paths.kept(length + len(slots), tree)
            self.length = length + len(moved)
        else:
            self.rollback(length)

    def rollback(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        assert 0 <= length <= self.length, f"rollback to {length} of {self.length}"
        self._cache.keep(length)
        self.length = length
        self._paths = TreePaths()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Number of logits per position, padding included."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


def max_context_length(model: PreTrainedModel) -> int:
    """Number of tokens of the longest text the model can read."""
    return context_of_model(model).positions


def check_text_fits(model: PreTrainedModel, tokens: int) -> None:
    """Raise DistillSpecError for a text that reaches a change of the model's RoPE frequencies."""
    limit, reason = context_of_model(model)
    if reason and tokens > limit:
        raise DistillSpecError(
            f"the text may have {tokens} tokens, {type(model).__name__} reads {limit}: {reason}",
            where=f"decoding with {model.name_or_path or 'a model of that class'}",
            fix="shorten the prompt, or lower max_new_tokens",
        )


def context_of_model(model: PreTrainedModel) -> ContextLength:
    """How long a text the model can read, and why not longer."""
    config = model.config.get_text_config(decoder=True)
    # The attribute maps the family's own name.
    length = getattr(config, "max_position_embeddings", None)
    return context_of({**vars(config), "max_position_embeddings": length})
