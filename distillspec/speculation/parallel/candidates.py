"""CARD's cache: layers of likely continuations of a text, pruned as the text goes on (2508.04462).

The cache is a tree. Each node is a token after its parent, with the draft's probability of the
entire path. A layer holds at most N nodes, the most probable paths of its depth. Every node with
known children keeps the N best of them. So a layer that pruning has emptied can be built again
without a forward.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ROOT = -1


class Child(NamedTuple):
    """A token that may follow.

    Attributes:
        token: The token.
        log_q: Log of its conditional probability.
    """

    token: int
    log_q: float


@dataclass
class Node:
    """A token of the tree.

    Attributes:
        token: The token.
        parent: The number of the parent node, or ROOT.
        depth: Tokens on the path, this one included.
        log_weight: Log of the path's probability.
        children: The best children, once they are known.
    """

    token: int
    parent: int
    depth: int
    log_weight: float
    children: list[Child] | None = None


class Descent(NamedTuple):
    """Where a text went on through the tree.

    Attributes:
        path: The nodes it passed, by their old numbers.
        is_whole: Whether every token of it was a node.
        survivors: Old numbers of the nodes that stay, ascending. They are renumbered in this order.
    """

    path: list[int]
    is_whole: bool
    survivors: list[int]


class Snapshot(NamedTuple):
    """The nodes as lists, parents before children.

    Attributes:
        tokens: The token of each node.
        parents: The number of each node's parent, or ROOT.
        log_weights: Log of the probability of each node's path.
    """

    tokens: list[int]
    parents: list[int]
    log_weights: list[float]


@dataclass
class Candidates:
    """The tree of candidates after a text.

    Attributes:
        width: N, the most nodes per layer.
        depth: The most layers after the text.
        nodes: All nodes, parents before children.
    """

    width: int
    depth: int
    nodes: list[Node] = field(default_factory=list)
    _root: list[Child] | None = None
    _layers: list[list[int]] = field(default_factory=list)

    def clear(self) -> None:
        """Forget all candidates."""
        self.nodes, self._layers, self._root = [], [], None

    def frontier(self) -> list[int]:
        """The nodes (ROOT: the text itself) whose children come next; none if the tree is full."""
        if self._root is None:
            return [ROOT]
        return list(self._layers[-1]) if 0 < len(self._layers) < self.depth else []

    def extend(self, parents: Sequence[int], children: Iterable[Sequence[Child]]) -> None:
        """Add a layer: the best of all these children.

        Args:
            parents: The frontier's nodes.
            children: For each of them its children, the most probable first.
        """
        for parent, best in zip(parents, children, strict=True):
            if parent == ROOT:
                self._root = list(best)
            else:
                self.nodes[parent].children = list(best)
        self._add_layer(parents)

    def descend(self, tokens: Sequence[int]) -> Descent:
        """Continue the text by these tokens: the subtree after them stays, closer to the root.

        If a token is no node, all candidates are forgotten.
        """
        # 1. Walk down the tree. A miss ends the walk.
        path: list[int] = []
        top = ROOT
        for token in tokens:
            child = self._child(top, token)
            if child is None:
                self.clear()
                return Descent(path, False, [])
            path.append(child)
            top = child
        if top == ROOT:
            return Descent([], True, list(range(len(self.nodes))))
        # 2. Renumber the subtree, with depths and weights relative to its new root.
        survivors = self._below(top)
        number = {top: ROOT} | {old: new for new, old in enumerate(survivors)}
        base = self.nodes[top]
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
        # 3. Drop the layers down to that of the new root, and those that pruning has emptied.
        layers = [[number[old] for old in layer if old in number] for layer in self._layers]
        self._layers = [layer for layer in layers[base.depth :] if layer]
        self._rebuild()
        return Descent(path, True, survivors)

    def snapshot(self) -> Snapshot:
        """The present nodes as lists."""
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
        """The nodes below `top`, ascending, without `top` itself."""
        inside = {top}
        # Parents come before children, so one pass is enough.
        for number, node in enumerate(self.nodes):
            if node.parent in inside:
                inside.add(number)
        return sorted(inside - {top})

    def _rebuild(self) -> None:
        """Add the layer that pruning has emptied, if the children of its parents are known."""
        last = self._layers[-1] if self._layers else [ROOT]
        known = [parent for parent in last if self._children(parent) is not None]
        if known and len(self._layers) < self.depth:
            self._add_layer(known)

    def _children(self, parent: int) -> list[Child] | None:
        return self._root if parent == ROOT else self.nodes[parent].children

    def _add_layer(self, parents: Sequence[int]) -> None:
        # Path probabilities are products; their logs neither underflow nor change the order.
        scored = [
            (self._log_weight(parent) + child.log_q, parent, child.token)
            for parent in parents
            for child in self._children(parent) or []
        ]
        best = heapq.nlargest(self.width, scored, key=lambda child: child[0])
        layer = []
        for log_weight, parent, token in best:
            layer.append(len(self.nodes))
            depth = 1 if parent == ROOT else self.nodes[parent].depth + 1
            self.nodes.append(Node(token, parent, depth, log_weight))
        if layer:
            self._layers.append(layer)

    def _log_weight(self, parent: int) -> float:
        return 0.0 if parent == ROOT else self.nodes[parent].log_weight


def most_probable_path(snapshot: Snapshot, tokens: Sequence[int], longest: int) -> list[int]:
    """The path after `tokens` that always takes the most probable child.

    Args:
        snapshot: The tree.
        tokens: Where to start, from the root on.
        longest: The most tokens of the path.

    Returns:
        The tokens of the path; none where `tokens` leave the tree or nothing is known after them.
    """
    # 1. Index all children, and the best child of each parent.
    best: dict[int, int] = {}
    after: dict[tuple[int, int], int] = {}
    for number, (token, parent) in enumerate(zip(snapshot.tokens, snapshot.parents, strict=True)):
        after[parent, token] = number
        held = best.get(parent)
        if held is None or snapshot.log_weights[number] > snapshot.log_weights[held]:
            best[parent] = number
    # 2. Follow the tokens that were committed after the snapshot.
    end = ROOT
    for token in tokens:
        if (end, token) not in after:
            return []
        end = after[end, token]
    # 3. Go on with the best child of each node.
    path: list[int] = []
    while end in best and len(path) < longest:
        end = best[end]
        path.append(snapshot.tokens[end])
    return path
