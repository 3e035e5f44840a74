"""What decoding needs of a model: tokens in, logits out, and a cache that can forget its end."""

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
        """Slots of the cache; `length` plus the fed tokens must not exceed it."""
        ...

    @property
    def positions(self) -> int:
        """Tokens of the longest text, or path through a tree, that the model can read."""
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
        """Wait for the device; call it before reading a clock."""
        ...


class Runner(TextRunner, Protocol):
    """A runner that can also read several continuations of its text at once."""

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """Append the nodes of a tree to the cache of one row.

        Token i goes into slot `length + i`, and sees only the text that ends in slot parents[i].
        Slots are no positions until `keep` makes one text of them.

        Args:
            tokens: long [n].
            parents: For each token, the slot before it; -1 for none.

        Returns:
            Logits [1, n, V] after each token.
        """
        ...

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        """Make one text of the cache again.

        Args:
            length: The first slots, which stay.
            slots: The slots that follow them, in their order in the text.
            tree: Further slots, ascending, that stay a tree after that text, in the slots next to
                it. The parent of each is among them or is the text's last slot.
        """
        ...


class Room(NamedTuple):
    """Tokens that still fit; below 0 there are too many.

    Attributes:
        slots: Into the cache.
        positions: Into what the model can read.
    """

    slots: int
    positions: int


@runtime_checkable
class PieceReader(Protocol):
    """A runner whose model reads each token as pieces of another tokenizer.

    What fits depends on the tokens. For a text that does not fit the runner drafts nothing, and
    decoding goes on without it.
    """

    def room_after(self, tokens: Sequence[int]) -> Room:
        """Room after the text and these tokens, for tokens of one piece each."""
        ...


def room_after(runner: TextRunner, tokens: Sequence[int]) -> Room:
    """Room of a runner after it has read these tokens behind its text."""
    if isinstance(runner, PieceReader):
        return runner.room_after(tokens)
    length = runner.length + len(tokens)
    return Room(runner.capacity - length, runner.positions - length)


@runtime_checkable
class EntropyRunner(Protocol):
    """A runner that computes the entropy together with the logits, which is cheaper."""

    @property
    def computes_entropy(self) -> bool:
        """Whether this runner does so."""
        ...

    def feed_for_entropy(self, token: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Append one token to the cache.

        Args:
            token: long [1, 1].
            temperature: Above 0.

        Returns:
            Logits [1, 1, V], and the entropy of softmax(z / temperature) in nats, a scalar on the
            device.
        """
        ...
