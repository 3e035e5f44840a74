"""A draft with another tokenizer, as a runner over the target's tokens (TLI, 2502.05202).

The draft's distribution is restricted to the tokens that both vocabularies share, and is verified
like any other. So the output has the target's distribution, however the two tokenizers split the
text. The draft reads each committed token as its own pieces of the same string, and its cache is
rolled back at their boundaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from distillspec.speculation.runner import Room, Runner


class _Span(NamedTuple):
    """Slots of the draft's cache that hold one token of the target."""

    start: int
    stop: int


class CrossTokenizerRunner:
    """`speculation.runner.Runner` over one sequence of the target's tokens, and a `PieceReader`.

    `capacity` and `positions` count target tokens: those held, plus one for each free slot of the
    draft. This is exact for shared tokens, the only ones the draft can propose.
    """

    def __init__(self, draft: Runner, token_map: CrossTokenizerMap) -> None:
        self.vocab_size: int = token_map.target_vocabulary
        self._draft = draft
        self._map = token_map
        self._spans: list[_Span] = []

    @property
    def length(self) -> int:
        return len(self._spans)

    @property
    def capacity(self) -> int:
        return self.length + self._draft.capacity - self._draft.length

    @property
    def positions(self) -> int:
        return self.length + self._draft.positions - self._draft.length

    def room_after(self, tokens: Sequence[int]) -> Room:
        """Free slots of the draft after the pieces of `tokens` are read."""
        pieces: Iterable[tuple[int, ...]] = map(self._map.pieces, tokens)
        if not self._spans:
            pieces = self._map.text(tokens)
        length = self._draft.length + sum(map(len, pieces))
        return Room(self._draft.capacity - length, self._draft.positions - length)

    def reset(self) -> None:
        self._draft.reset()
        self._spans = []

    def feed(self, tokens: Tensor) -> Tensor:
        """long [1, G] -> logits [1, G, V of the target] after each of them."""
        assert tokens.shape[0] == 1, "one text is read at a time"
        pieces: list[int] = []
        for token in tokens[0].tolist():
            pieces += self._append(token, self._draft.length + len(pieces))
        logits = self._draft.feed(self._read(tokens, pieces)[None])
        return self._after(logits, tokens.shape[1])

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """long [n], each after the text that ends at its parent's slot -> logits [1, n, V]."""
        pieces: list[int] = []
        piece_parents: list[int] = []
        for token, parent in zip(tokens.tolist(), parents, strict=True):
            before = self._spans[parent].stop - 1 if parent >= 0 else -1
            start = self._draft.length + len(pieces)
            own_pieces = self._append(token, start)
            pieces += own_pieces
            # The first piece follows the last piece of the parent, others follow the one before.
            piece_parents += [before, *range(start, start + len(own_pieces) - 1)]
        logits = self._draft.feed_tree(self._read(tokens, pieces), piece_parents)
        return self._after(logits, tokens.shape[0])

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        """Keep the first `length` slots, then `slots` as text, then `tree` as a tree after that."""
        text_spans, tree_spans = ([self._spans[slot] for slot in part] for part in (slots, tree))
        self._draft.keep(self._end(length), _slots(text_spans), _slots(tree_spans))
        # The draft's cache has moved the slots together; the spans follow.
        self._spans = self._spans[:length]
        for span in (*text_spans, *tree_spans):
            start = self._end(self.length)
            self._spans.append(_Span(start, start + span.stop - span.start))

    def rollback(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        assert 0 <= length <= self.length, f"rollback to {length} of {self.length}"
        self._draft.rollback(self._end(length))
        self._spans = self._spans[:length]

    def synchronize(self) -> None:
        self._draft.synchronize()

    def _append(self, token: int, start: int) -> tuple[int, ...]:
        """The pieces of `token`, recorded as the slots from `start` on."""
        begins = not self._spans
        pieces = self._map.text([token])[0] if begins else self._map.pieces(token)
        self._spans.append(_Span(start, start + len(pieces)))
        return pieces

    def _read(self, like: Tensor, pieces: list[int]) -> Tensor:
        """The pieces as a tensor on the device of `like`.

        Raises:
            DistillSpecError: The draft has no room for them.
        """
        capacity, positions = self._draft.capacity, self._draft.positions
        needed = self._draft.length + len(pieces)
        if needed > min(capacity, positions):
            limit = (
                f"its cache holds {capacity}"
                if capacity < positions
                else f"it can read {positions}"
            )
            raise DistillSpecError(
                f"the text has {needed} tokens in the draft's tokenizer, but {limit}",
                where="decoding with a cross-tokenizer draft",
                fix="shorten the prompt, lower max_new_tokens, or increase the runner's capacity",
            )
        return like.new_tensor(pieces)

    def _after(self, logits: Tensor, fed: int) -> Tensor:
        """The logits after the last piece of each fed token, over the target's vocabulary."""
        # Spans are slots of the cache; the logits begin at the first slot of this forward.
        first = self._draft.length - logits.shape[1]
        rows = torch.tensor([span.stop - 1 - first for span in self._spans[-fed:]])
        return self._map.logits(logits[:, rows.to(logits.device)])

    def _end(self, length: int) -> int:
        return self._spans[length - 1].stop if length else 0


def _slots(spans: Sequence[_Span]) -> list[int]:
    return [slot for span in spans for slot in range(span.start, span.stop)]
