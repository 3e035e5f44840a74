"""A draft with a vocabulary of its own, as a runner over the target's tokens (TLI, 2502.05202).

Its distribution is restricted to the tokens that both vocabularies have, and is verified like any
other; so the output has the target's distribution, whatever the two tokenizers make of the text.
The draft reads each committed token as its own pieces of the same string, and its cache is cut at
their borders.
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
    """Slots of the draft's cache that one token of the target fills."""

    start: int
    stop: int


class CrossTokenizerRunner:
    """`speculation.runner.Runner` over one sequence of the target's tokens, and a `PieceReader`.

    capacity and positions are of the target's tokens, too: what is held, and one more for each free
    place of the draft's, which is exact for tokens that both have, all that it can propose.
    """

    def __init__(self, draft: Runner, bridge: CrossTokenizerMap) -> None:
        self.vocab_size: int = bridge.target_vocabulary
        self._draft = draft
        self._bridge = bridge
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
        """Places of the draft's that are left once the pieces of `tokens` are read, too."""
        pieces: Iterable[tuple[int, ...]] = map(self._bridge.pieces, tokens)
        if not self._spans:
            pieces = self._bridge.text(tokens)
        length = self._draft.length + sum(map(len, pieces))
        return Room(self._draft.capacity - length, self._draft.positions - length)

    def reset(self) -> None:
        self._draft.reset()
        self._spans = []

    def feed(self, tokens: Tensor) -> Tensor:
        """long [1, G] -> logits [1, G, V of the target] after each of them."""
        assert tokens.shape[0] == 1, "one text is translated at a time"
        pieces: list[int] = []
        for token in tokens[0].tolist():
            pieces += self._append(token, self._draft.length + len(pieces))
        logits = self._draft.feed(self._read(tokens, pieces)[None])
        return self._after(logits, tokens.shape[1])

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """long [n], each after the text that ends in its parent's slot -> logits [1, n, V]."""
        pieces: list[int] = []
        their_parents: list[int] = []
        for token, parent in zip(tokens.tolist(), parents, strict=True):
            before = self._spans[parent].stop - 1 if parent >= 0 else -1
            start = self._draft.length + len(pieces)
            cut = self._append(token, start)
            pieces += cut
            their_parents += [before, *range(start, start + len(cut) - 1)]
        logits = self._draft.feed_tree(self._read(tokens, pieces), their_parents)
        return self._after(logits, tokens.shape[0])

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        """Keep the first `length` slots, then these as text, then `tree` as a tree after it."""
        moved, grown = ([self._spans[slot] for slot in some] for some in (slots, tree))
        self._draft.keep(self._end(length), _slots(moved), _slots(grown))
        self._spans = self._spans[:length]
        for span in (*moved, *grown):
            start = self._end(self.length)
            self._spans.append(_Span(start, start + span.stop - span.start))

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        assert 0 <= length <= self.length, f"rollback to {length} of {self.length}"
        self._draft.rollback(self._end(length))
        self._spans = self._spans[:length]

    def synchronize(self) -> None:
        self._draft.synchronize()

    def _append(self, token: int, start: int) -> tuple[int, ...]:
        """The pieces of `token`, noted as the slots from `start` on."""
        begins = not self._spans
        pieces = self._bridge.text([token])[0] if begins else self._bridge.pieces(token)
        self._spans.append(_Span(start, start + len(pieces)))
        return pieces

    def _read(self, like: Tensor, pieces: list[int]) -> Tensor:
        """The pieces where the models are; DistillSpecError where the draft cannot hold them."""
        capacity, positions = self._draft.capacity, self._draft.positions
        needed = self._draft.length + len(pieces)
        if needed > min(capacity, positions):
            limit = (
                f"its cache has {capacity}" if capacity < positions else f"it can read {positions}"
            )
            raise DistillSpecError(
                f"the text has {needed} of the draft's own tokens, and {limit}",
                where="decoding with a draft of another tokenizer",
                fix="shorten the prompt, lower max_new_tokens, or give the runner more capacity",
            )
        return like.new_tensor(pieces)

    def _after(self, logits: Tensor, fed: int) -> Tensor:
        """Of what was fed now: the rows after the last piece of each token, translated."""
        first = self._draft.length - logits.shape[1]
        rows = torch.tensor([span.stop - 1 - first for span in self._spans[-fed:]])
        return self._bridge.logits(logits[:, rows.to(logits.device)])

    def _end(self, length: int) -> int:
        return self._spans[length - 1].stop if length else 0


def _slots(spans: Sequence[_Span]) -> list[int]:
    return [slot for span in spans for slot in range(span.start, span.stop)]
