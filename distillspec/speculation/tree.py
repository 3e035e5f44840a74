"""Drafted sequences as a tree: shared beginnings stored once, with the order of all draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tree:
    """Nodes 0..N-1, parents before children, and contexts 0..N: the root, then node i as i + 1.

    A context is what stands before the next token: the committed text for the root, a path for the
    others. p has one row per context.

    Attributes:
        tokens: The token of each node.
        parents: The parent of each node, as a context.
        drawn: For each context, the nodes drawn after it, in drawing order, one entry per draw. Two
            draws of the same token are two entries of one node.
        q_rows: For each context, the row of q that its children were drawn from; -1 without
            children.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    drawn: tuple[tuple[int, ...], ...]
    q_rows: tuple[int, ...]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Tree:
        """The tree of K drafted sequences.

        Row k * length + i of q is what token i of sequence k was drawn from. `length` is that of
        the longest sequence; others may end early.
        """
        length = max((len(sequence) for sequence in sequences), default=0)
        tokens: list[int] = []
        parents: list[int] = []
        drawn: list[list[int]] = [[]]
        q_rows: list[int] = [-1]
        nodes: dict[tuple[int, int], int] = {}
        for number, sequence in enumerate(sequences):
            context = 0
            for position, token in enumerate(sequence):
                # Equal beginnings have equal q, so the row of the first sequence serves all.
                if q_rows[context] < 0:
                    q_rows[context] = number * length + position
                # Only the first draw of a token after this context makes a node.
                if (context, token) not in nodes:
                    nodes[context, token] = len(tokens)
                    tokens.append(token)
                    parents.append(context)
                    drawn.append([])
                    q_rows.append(-1)
                node = nodes[context, token]
                # Every draw is an entry, since some rules count repeated draws.
                drawn[context].append(node)
                context = node + 1
        return cls(tuple(tokens), tuple(parents), tuple(map(tuple, drawn)), tuple(q_rows))

    def __len__(self) -> int:
        return len(self.tokens)

    def child(self, context: int, token: int) -> int | None:
        """The node of that token after that context, if there is one."""
        return next((node for node in self.drawn[context] if self.tokens[node] == token), None)

    def path(self, context: int) -> list[int]:
        """The nodes from the root to a context."""
        nodes: list[int] = []
        while context:
            nodes.append(context - 1)
            context = self.parents[context - 1]
        return nodes[::-1]

    def depths(self) -> list[int]:
        """For each node, the tokens on its path, itself included."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(depths[parent - 1] + 1 if parent else 1)
        return depths

    def ancestors(self, node: int) -> Iterator[int]:
        """The nodes on the way to the root, the node itself first."""
        yield node
        while self.parents[node]:
            node = self.parents[node] - 1
            yield node
