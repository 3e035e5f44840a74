"""What decoding knows of a model: tokens in, logits out, and a cache that can forget its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class TextRunner(Protocol):
    """One model and its cache over B rows of equal length, as texts."""

    @property
    def vocab_size(self) -> int:
        """V, the size of the logits."""
        ...

    @property
    def length(self) -> int:
        """Tokens held in the cache."""
        ...

    @property
    def capacity(self) -> int:
        """Slots of the cache: `length` plus the fed tokens must not exceed it."""
        ...

    @property
    def positions(self) -> int:
        """Tokens of the longest text, or way through a tree, that the model can read."""
        ...

    def reset(self) -> None:
        """Empty the cache."""
        ...

    def feed(self, tokens: Tensor) -> Tensor:
        """Append long [B, G], G >= 1, to the cache -> logits [B, G, V] after each of them."""
        ...

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens, 0 <= length <= self.length."""
        ...

    def synchronize(self) -> None:
        """Wait for the device; to be called before a clock is read."""
        ...


class Runner(TextRunner, Protocol):
    """One that can also read several continuations of its text at once."""

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """Append long [n] to the cache of one row -> logits [1, n, V] after each of them.

        Token i goes into slot `length + i` and continues the text that ends in slot parents[i] (-1:
        none), which is all it sees. Slots are no positions until `keep` makes one text of them.
        """
        ...

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        """Keep the first `length` slots, then these, in their order: one text again.

        tree: further slots, ascending, that stay a tree after that text, in the slots next to it;
        the parent of each is among them or is the text's last slot.
        """
        ...


class Room(NamedTuple):
    """Tokens that still fit: into a cache, and into what the model can read. Below 0: too many."""

    slots: int
    positions: int


@runtime_checkable
class PieceReader(Protocol):
    """A runner whose model reads tokens as pieces of its own: what fits depends on which they are.

    Not every text fits; the runner then rests, and whoever decodes goes on without it.
    """

    def room_after(self, tokens: Sequence[int]) -> Room:
        """What is left once these are read after the text, for tokens that are a piece each."""
        ...


def room_after(runner: TextRunner, tokens: Sequence[int]) -> Room:
    """What is left in a runner once these are read after what it holds."""
    if isinstance(runner, PieceReader):
        return runner.room_after(tokens)
    length = runner.length + len(tokens)
    return Room(runner.capacity - length, runner.positions - length)


@runtime_checkable
class EntropyRunner(Protocol):
    """A runner that computes the entropy with the logits, which is cheaper than after them."""

    @property
    def tells_entropy(self) -> bool:
        """Whether this one does."""
        ...

    def feed_for_entropy(self, token: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Append long [1, 1] -> logits [1, 1, V], and the entropy of softmax(z / temperature).

        In nats, a scalar where the model is. temperature: above 0.
        """
        ...
