"""CARD's cache: layers of likely continuations of a text, pruned as the text goes on (2508.04462).

A tree: each node is a token after its parent, with the draft's probability of the whole path. A
layer holds at most N nodes, the likeliest paths of its depth. Every node whose children are known
keeps the N best of them, so that a layer which pruning has emptied can be made again without a
forward.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ROOT = -1


class Child(NamedTuple):
    """A token that may follow, and the log of its conditional probability."""

    token: int
    log_q: float


@dataclass
class Node:
    """log_weight: log of the path's probability. children: the best ones, once they are known."""

    token: int
    parent: int
    depth: int
    log_weight: float
    children: list[Child] | None = None


class Descent(NamedTuple):
    """Where a text went on through the tree.

    path: nodes it passed, by their old numbers. is_whole: every token of it was a node.
    survivors: old numbers of the nodes that stay, ascending; they are numbered anew in this order.
    """

    path: list[int]
    is_whole: bool
    survivors: list[int]


class Snapshot(NamedTuple):
    """The nodes as lists, parents (by number, ROOT: none) before children; log weights of paths."""

    tokens: list[int]
    parents: list[int]
    log_weights: list[float]


@dataclass
class Candidates:
    """At most `width` nodes a layer (N) and `depth` layers after the text."""

    width: int
    depth: int
    nodes: list[Node] = field(default_factory=list)
    _root: list[Child] | None = None
    _layers: list[list[int]] = field(default_factory=list)

    def clear(self) -> None:
        """Nothing is known of what may follow the text."""
        self.nodes, self._layers, self._root = [], [], None

    def frontier(self) -> list[int]:
        """The nodes (ROOT: the text itself) whose children are wanted next; none if it is full."""
        if self._root is None:
            return [ROOT]
        return list(self._layers[-1]) if 0 < len(self._layers) < self.depth else []

    def extend(self, parents: Sequence[int], children: Iterable[Sequence[Child]]) -> None:
        """Children of the frontier's nodes, likeliest first: the best of all are the next layer."""
        for parent, best in zip(parents, children, strict=True):
            if parent == ROOT:
                self._root = list(best)
            else:
                self.nodes[parent].children = list(best)
        self._add_layer(parents)

    def descend(self, tokens: Sequence[int]) -> Descent:
        """The text went on by these tokens: what begins with them stays, a layer each higher.

        Where a token is no node all is forgotten.
        """
        path: list[int] = []
        here = ROOT
        for token in tokens:
            found = self._child(here, token)
            if found is None:
                self.clear()
                return Descent(path, False, [])
            path.append(found)
            here = found
        if here == ROOT:
            return Descent([], True, list(range(len(self.nodes))))
        survivors = self._below(here)
        number = {here: ROOT} | {old: new for new, old in enumerate(survivors)}
        base = self.nodes[here]
        self._root = base.children
        self.nodes = [
            Node(
                node.token,
                number[node.parent],
                node.depth - base.depth,
                node.log_weight - base.log_weight,
                node.children,
            )
            for node in (self.nodes[old] for old in survivors)
        ]
        layers = [[number[old] for old in layer if old in number] for layer in self._layers]
        self._layers = [layer for layer in layers[base.depth :] if layer]
        self._rebuild()
        return Descent(path, True, survivors)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            [node.token for node in self.nodes],
            [node.parent for node in self.nodes],
            [node.log_weight for node in self.nodes],
        )

    def _child(self, parent: int, token: int) -> int | None:
        for number, node in enumerate(self.nodes):
            if node.parent == parent and node.token == token:
                return number
        return None

    def _below(self, top: int) -> list[int]:
        """The nodes under `top`, ascending, itself left out."""
        inside = {top}
        for number, node in enumerate(self.nodes):
            if node.parent in inside:
                inside.add(number)
        return sorted(inside - {top})

    def _rebuild(self) -> None:
        """Pruning may have emptied the layer after nodes whose children are known."""
        last = self._layers[-1] if self._layers else [ROOT]
        known = [one for one in last if self._children(one) is not None]
        if known and len(self._layers) < self.depth:
            self._add_layer(known)

    def _children(self, parent: int) -> list[Child] | None:
        return self._root if parent == ROOT else self.nodes[parent].children

    def _add_layer(self, parents: Sequence[int]) -> None:
        scored = [
            (self._log_weight(parent) + child.log_q, parent, child.token)
            for parent in parents
            for child in self._children(parent) or []
        ]
        best = heapq.nlargest(self.width, scored, key=lambda one: one[0])
        layer = []
        for log_weight, parent, token in best:
            layer.append(len(self.nodes))
            depth = 1 if parent == ROOT else self.nodes[parent].depth + 1
            self.nodes.append(Node(token, parent, depth, log_weight))
        if layer:
            self._layers.append(layer)

    def _log_weight(self, parent: int) -> float:
        return 0.0 if parent == ROOT else self.nodes[parent].log_weight


def likeliest_path(snapshot: Snapshot, tokens: Sequence[int], longest: int) -> list[int]:
    """The tokens that follow `tokens` in the tree, always the likeliest child: up to `longest`.

    Empty where `tokens` leave the tree or nothing is known after them.
    """
    best: dict[int, int] = {}
    after: dict[tuple[int, int], int] = {}
    for number, (token, parent) in enumerate(zip(snapshot.tokens, snapshot.parents, strict=True)):
        after[parent, token] = number
        held = best.get(parent)
        if held is None or snapshot.log_weights[number] > snapshot.log_weights[held]:
            best[parent] = number
    here = ROOT
    for token in tokens:
        if (here, token) not in after:
            return []
        here = after[here, token]
    path: list[int] = []
    while here in best and len(path) < longest:
        here = best[here]
        path.append(snapshot.tokens[here])
    return path
