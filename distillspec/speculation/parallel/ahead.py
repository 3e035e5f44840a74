"""CARD's draft: it runs ahead of the target, one layer of candidates per forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distillspec.speculation.limits import longest_text
from distillspec.speculation.parallel.candidates import ROOT, Candidates, Child, Snapshot
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy, check_finite

_IMPOSSIBLE = float("-inf")


class AheadDraft:
    """Grows `candidates` after a text that others continue.

    It draws nothing at random and cannot change the output's distribution, since the target draws
    every emitted token itself. It ranks candidates by the untempered distribution: at temperature 0
    the other distribution knows a single token.
    """

    def __init__(self, runner: Runner, candidates: Candidates) -> None:
        self._runner = runner
        self._candidates = candidates
        self._policy = SamplingPolicy()
        self._text: list[int] = []
        self._slots: list[int] = []  # for each node, its slot in the cache, or -1
        self.steps = 0

    @property
    def capacity(self) -> int:
        return longest_text(self._runner)

    @property
    def committed(self) -> int:
        """Tokens of the text after which the candidates stand."""
        return len(self._text)

    def start(self, prompt: Sequence[int], policy: SamplingPolicy) -> None:
        """Start a new text of T >= 1 tokens. Only its last token is left for `grow` to read."""
        self._runner.reset()
        self._candidates.clear()
        self._text, self._slots, self._policy = list(prompt), [], policy
        if len(prompt) > 1:
            self._runner.feed(torch.tensor([list(prompt[:-1])]))
        self.steps = 0

    def follow(self, tokens: Sequence[int]) -> bool:
        """Continue the text by these tokens; True if the last one was a candidate (a hit)."""
        # 1. Count the slots that hold text. The slots behind them hold nodes.
        length = min(len(self._text), self._runner.length)
        self._text += tokens
        # 2. Nodes on the way become text, and the nodes below them stay a tree.
        descent = self._candidates.descend(tokens)
        # Nodes that were never fed have slot -1, and nothing to keep.
        slots = [self._slots[node] for node in descent.path]
        read = [slot for slot in slots if slot >= 0]
        survivors = [self._slots[node] for node in descent.survivors]
        kept = [slot for slot in survivors if slot >= 0]
        self._runner.keep(length, read, kept)
        # 3. The survivors lie directly behind the text now, in the same order.
        moved = {slot: length + len(read) + i for i, slot in enumerate(kept)}
        self._slots = [moved.get(slot, -1) for slot in survivors]
        # `descend` may have rebuilt a layer, whose nodes are not fed yet.
        self._slots += [-1] * (len(self._candidates.nodes) - len(survivors))
        return descent.is_whole

    def grow(self) -> bool:
        """Add a layer by one forward of the draft. False, without a forward, where all is full."""
        if not self.next_size():
            return False
        frontier = self._candidates.frontier()
        if frontier == [ROOT]:
            # Nothing is known after the text, so read what is unread of it.
            pending = torch.tensor([self._text[self._runner.length :]])
            logits = self._runner.feed(pending)[0, -1:]
        else:
            logits = self._feed(frontier)
        self.steps += 1
        before = len(self._candidates.nodes)
        self._candidates.extend(frontier, self._best(logits))
        self._slots += [-1] * (len(self._candidates.nodes) - before)
        return True

    def next_size(self) -> int:
        """Tokens that the next step feeds; 0 where all is full."""
        frontier = self._candidates.frontier()
        unread = len(self._text) - self._runner.length
        nodes = self._candidates.nodes
        depth = (
            0
            if frontier == [ROOT]
            else max((nodes[number].depth for number in frontier), default=0)
        )
        size = unread if frontier == [ROOT] else len(frontier)
        # Each node takes a slot, but only its depth takes positions.
        fits = (
            self._runner.length + size <= self._runner.capacity
            and len(self._text) + depth <= self._runner.positions
        )
        return size if fits else 0

    def snapshot(self) -> Snapshot:
        return self._candidates.snapshot()

    def _feed(self, frontier: list[int]) -> Tensor:
        """Feed the frontier's nodes: logits [n, V] after each of them."""
        nodes = [self._candidates.nodes[number] for number in frontier]
        first = self._runner.length
        text_end = len(self._text) - 1
        # The first layer follows the last token of the text.
        parents = [text_end if node.parent == ROOT else self._slots[node.parent] for node in nodes]
        logits = self._runner.feed_tree(torch.tensor([node.token for node in nodes]), parents)[0]
        for offset, number in enumerate(frontier):
            self._slots[number] = first + offset
        return logits

    def _best(self, logits: Tensor) -> list[list[Child]]:
        """For each row of logits [n, V], the most probable children, the best first."""
        log_q = self._policy.untempered(logits).log()
        values, tokens = log_q.topk(min(self._candidates.width, log_q.shape[-1]), dim=-1)
        # The softmax of a bad row is NaN everywhere, so one column shows it.
        check_finite("the draft", values[:, 0])
        return [
            [
                Child(token, value)
                for token, value in zip(row, scores, strict=True)
                if value > _IMPOSSIBLE
            ]
            for row, scores in zip(tokens.tolist(), values.tolist(), strict=True)
        ]
