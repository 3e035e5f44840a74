"""Several drafts for models that make their own masks: paths of a tree as rows of a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.models.runners.cache import is_plainly_causal
from distillspec.models.runners.eager import CausalRunner, max_context_length, vocabulary_size
from distillspec.models.runners.encoder_decoder import is_encoder_decoder
from distillspec.models.runners.text_reading import TextReading, reading
from distillspec.recipe.context import UNLIMITED
from distillspec.speculation.runner import Runner

log = logging.getLogger(__name__)


def eager_runner(model: PreTrainedModel, *, vocab_size: int | None = None) -> Runner:
    """A runner of one text; use `runner_for_trees` for trees."""
    if is_encoder_decoder(model):
        return EncoderDecoderRunner(model, vocab_size=vocab_size)
    return CausalRunner(model, vocab_size=vocab_size)


def runner_for_trees(model: PreTrainedModel, *, vocab_size: int | None = None) -> Runner:
    """An eager runner that reads a tree in one row, or, with a warning, one path per row."""
    if is_plainly_causal(model):
        return CausalRunner(model, vocab_size=vocab_size)
    if is_encoder_decoder(model):
        log.warning(
            "%s has an encoder: several drafts are read as a batch, each with a copy of the cache",
            type(model).__name__,
        )
        return EncoderDecoderRunner(model, vocab_size=vocab_size)
    log.warning(
        "%s does not accept a prepared attention mask: several drafts are read as a batch, "
        "each with a copy of the cache, eagerly",
        type(model).__name__,
    )
    return BatchedTreeRunner(model, vocab_size=vocab_size)


class BatchedTreeRunner:
    """`speculation.runner.Runner` over one text with a tree: one row per leaf.

    A row is the text and then the path to one leaf. So every mask that the model makes, such as a
    sliding window, is correct. The costs: the cache of the text is copied for each row; shared
    tokens are read once per path; a tree that arrives in pieces is read again from its root with
    each piece. Without a tree it works like `CausalRunner`.
    """

    def __init__(self, model: PreTrainedModel, *, vocab_size: int | None = None) -> None:
        self._text: TextReading = reading(model)
        assert not model.training, (
            "dropout would change the distribution: put the model in eval mode"
        )
        self.vocab_size: int = vocab_size or vocabulary_size(model)
        self.capacity: int = UNLIMITED
        self.positions: int = max_context_length(model)
        self._device = model.device
        self._text_length = 0
        self._tree = _Tree(torch.empty(0, dtype=torch.long, device=self._device), [])
        self._rows: TextReading | None = None  # in each row the text, then a path

    @property
    def length(self) -> int:
        """Slots in use: tokens of the text, then nodes of the tree."""
        return self._text_length + len(self._tree)

    def reset(self) -> None:
        """Empty the cache; its memory stays allocated."""
        self._forget_tree()
        self._text.keep(0)
        self._text_length = 0

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        """long [1, G] -> logits [1, G, V] after each token, in the model's dtype."""
        assert not len(self._tree), "keep a path of the tree before the text goes on"
        logits = self._forward(tokens, self._text)
        self._text_length += tokens.shape[1]
        return logits

    @torch.no_grad()
    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """long [n], each after the text that ends at its parent's slot -> logits [1, n, V]."""
        first = len(self._tree)
        self._tree = self._tree.grown(
            tokens.to(self._device), [parent - self._text_length for parent in parents]
        )
        table = self._tree.table()
        self._rows = self._copies(table.shape[0])
        logits = self._forward(table, self._rows)
        # A node may be in several rows, with equal logits: one of them is read.
        rows, depths = zip(*self._tree.positions()[first:], strict=True)
        return logits[list(rows), list(depths)][None]

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        """Keep the first `length` slots, then `slots` as text, then `tree` as a tree after that."""
        # Taken first, because `_keep_text` forgets the tree.
        remaining = self._tree.part([slot - self._text_length for slot in tree])
        self._keep_text(length, slots)
        self._tree = remaining

    def _keep_text(self, length: int, slots: Sequence[int]) -> None:
        nodes = [slot - self._text_length for slot in (*range(self._text_length, length), *slots)]
        # No node is kept: only the text is cut.
        if not nodes:
            self._forget_tree()
            self._text.keep(length)
            self._text_length = length
            return
        assert nodes == self._tree.path(nodes[-1]), "the kept nodes must form one path"
        if self._rows is None:  # the tree remained from an earlier one and was not read again
            table = self._tree.table()
            self._rows = self._text.repeated(table.shape[0])
            with torch.no_grad():
                self._forward(table, self._rows)
        # A node's row holds the text and the path: its copy becomes the new text.
        row, depth = self._tree.positions()[nodes[-1]]
        self._text_length += depth + 1
        self._text = self._rows.one_row(row, self._text_length)
        self._forget_tree()

    def rollback(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        assert 0 <= length <= self.length, f"rollback to {length} of {self.length}"
        self.keep(length, [])

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _forward(self, tokens: Tensor, text: TextReading) -> Tensor:
        return text.feed(tokens.to(self._device))[..., : self.vocab_size]

    def _copies(self, rows: int) -> TextReading:
        """The text's cache in `rows` rows; reuses the rows of the tree if their number is equal."""
        if self._rows is None or self._rows.rows != rows:
            return self._text.repeated(rows)
        self._rows.keep(self._text_length)
        return self._rows

    def _forget_tree(self) -> None:
        self._tree = _Tree(self._tree.tokens[:0], [])
        self._rows = None


class EncoderDecoderRunner(BatchedTreeRunner):
    """The runner of an encoder-decoder model, with or without trees: its rows share a source."""


class _Tree:
    """A tree of tokens.

    Attributes:
        tokens: Long [N].
    """

    def __init__(self, tokens: Tensor, parents: list[int]) -> None:
        """Make a tree.

        Args:
            tokens: Long [N].
            parents: Parent of each node, -1 for nodes that follow the text.
        """
        assert all(-1 <= parent < node for node, parent in enumerate(parents))
        self.tokens, self._parents = tokens, parents

    def __len__(self) -> int:
        return len(self._parents)

    def grown(self, tokens: Tensor, parents: list[int]) -> _Tree:
        return _Tree(torch.cat([self.tokens, tokens]), [*self._parents, *parents])

    def part(self, nodes: Sequence[int]) -> _Tree:
        """These nodes, ascending; a node whose parent is not among them follows the text."""
        new_index = {node: new for new, node in enumerate(nodes)}
        index = torch.tensor(list(nodes), dtype=torch.long, device=self.tokens.device)
        return _Tree(self.tokens[index], [new_index.get(self._parents[node], -1) for node in nodes])

    def path(self, node: int) -> list[int]:
        """The nodes from the first one after the text to this node."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self._parents[node]
        return nodes[::-1]

    def table(self) -> Tensor:
        """The tokens on the path to each leaf: long [leaves, longest path].

        Shorter paths are padded with any token, which no earlier token of the row sees.
        """
        paths = self._paths()
        longest = max(map(len, paths))
        nodes = torch.tensor([[*path, *[0] * (longest - len(path))] for path in paths])
        return self.tokens[nodes.to(self.tokens.device)]

    def positions(self) -> list[tuple[int, int]]:
        """For each node, a row of `table` that holds it and its column."""
        by_node = {
            node: (row, depth)
            for row, path in enumerate(self._paths())
            for depth, node in enumerate(path)
        }
        return [by_node[node] for node in range(len(self))]

    def _paths(self) -> list[list[int]]:
        inner = set(self._parents)
        return [self.path(node) for node in range(len(self)) if node not in inner]
