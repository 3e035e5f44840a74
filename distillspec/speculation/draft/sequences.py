"""Several drafted sequences: K independent ones, or K that start with different tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distillspec.speculation.draft.proposal import DraftContext
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import VerificationRule, VerifyResult


@dataclass(frozen=True)
class Bundle:
    """Drafted sequences, with their common beginnings stored once.

    Attributes:
        tree: The tree of all sequences.
        q: Shape [K * L, V]; row k * L + i is what token i of sequence k was drawn from.
        slots: For each node and each sequence that fed it, its slot in the draft's cache.
        steps: Forwards of the draft model.
        drafted: Tokens drawn.
    """

    tree: Tree
    q: Tensor
    slots: tuple[dict[int, int], ...]
    steps: int
    drafted: int

    @property
    def length(self) -> int:
        return max(self.tree.depths(), default=0)

    def score(self, target: Runner, head: Tensor) -> Tensor:
        """Feed all sequences in one forward; the target reads a shared beginning once."""
        root = target.length  # the slot of head
        tokens = torch.cat([head, head.new_tensor(self.tree.tokens)])
        # Contexts count from the head, so each is in slot root + context.
        parents = [root - 1, *(root + parent for parent in self.tree.parents)]
        return target.feed_tree(tokens, parents)[0]

    def verify(
        self, rule: VerificationRule, p: Tensor, random_source: RandomSource
    ) -> VerifyResult:
        return rule(p, self.q, self.tree, random_source)

    def commit(
        self, target: Runner, draft: Runner | None, committed: int, result: VerifyResult
    ) -> None:
        assert draft is not None, "sequences are drafted with a model"
        path = self._path(result)
        # The head has slot committed - 1. The nodes follow it in order.
        target.keep(committed, [committed + node for node in path])
        # A draft of gamma 0 has not read the whole text.
        draft.keep(min(committed, draft.length), self._fed(path))

    def is_whole(self, result: VerifyResult) -> bool:
        path = self._path(result)
        return not self.tree.drawn[path[-1] + 1 if path else 0]

    def _fed(self, path: list[int]) -> list[int]:
        """Slots of the draft's cache that hold a path, as far as one sequence fed it.

        Each sequence feeds shared tokens for itself, and its later tokens see its own copy only.
        """
        # Node numbers rise along a path.
        deepest = max((node for node in path if self.slots[node]), default=None)
        if deepest is None:
            return []
        sequence = next(iter(self.slots[deepest]))
        return [self.slots[node][sequence] for node in path if node <= deepest]

    def _path(self, result: VerifyResult) -> list[int]:
        """The nodes that were kept, from the root on."""
        context, path = 0, []
        for token in result.tokens[: result.accepted]:
            node = self.tree.child(context, token)
            assert node is not None, "a rule keeps what was drafted"
            path.append(node)
            context = node + 1
        return path


@dataclass(frozen=True)
class SequencesDraft:
    """Drafts several sequences; each is one row of every forward of the draft.

    Attributes:
        count: K, the number of sequences.
        distinct: Whether first tokens are drawn without replacement, so that no two sequences start
            with the same token.
    """

    count: int
    distinct: bool = False

    def slots(self, gamma: int) -> int:
        return self.count * gamma

    def propose(self, context: DraftContext, gamma: int) -> Bundle:
        """Draft K sequences of up to gamma tokens; the draft does not read their last tokens.

        A stop rule waits for the device once per sequence and step.
        """
        assert gamma >= 0
        if gamma == 0:
            nothing = torch.empty((0, context.vocab_size), device=context.head.device)
            return Bundle(Tree.of([]), nothing, (), steps=0, drafted=0)
        logits = context.runner.feed(context.pending().unsqueeze(0))[0, -1]
        root = context.policy.distribution(logits)
        sequences = _Sequences(context, self.first(root, context.random_source), root, logits)
        while sequences.alive and len(sequences.drawn) < gamma:
            sequences.draw(sequences.feed())
        return sequences.bundle()

    def first(self, root: Tensor, random_source: RandomSource) -> Tensor:
        """First tokens from q [V]: long [K], or fewer distinct ones where q has fewer."""
        if not self.distinct:
            return random_source.draw(root.expand(self.count, -1))
        left, tokens = root.clone(), []
        # At least one draw: NaN has no positive entry, and `check_finite` raises later.
        for _ in range(max(1, min(self.count, int((root > 0.0).sum())))):
            # `draw` takes unnormalised weights, so removing a token is enough.
            token = random_source.draw(left)
            left[token] = 0.0
            tokens.append(token)
        return torch.stack(tokens)


class _Sequences:
    """K sequences that grow together, until each has stopped by itself."""

    def __init__(self, context: DraftContext, tokens: Tensor, root: Tensor, logits: Tensor) -> None:
        """Start from the first tokens, long [K], drawn from q `root` [V] after `logits` [V]."""
        self._context = context
        self._K = K = len(tokens)
        self.drawn = [tokens]  # by position, long [K]
        self._rows = [root.expand(K, -1)]  # by position, q of the K sequences
        self._fed: list[list[int]] = []  # by position, the draft's slots of the K sequences
        self._lengths = [1] * K
        self._parents = [context.runner.length - 1] * K
        self._steps = 1
        stop, policy = context.stop, context.policy
        self.alive = [k for k in range(K) if not stop.stops_after(logits, tokens[k], policy)]

    def feed(self) -> Tensor:
        """Feed the last token of each sequence that goes on: logits [alive, V] after it."""
        runner, alive = self._context.runner, self.alive
        first_slot = runner.length
        tokens = self.drawn[-1] if len(alive) == self._K else self.drawn[-1][alive]
        logits = runner.feed_tree(tokens, [self._parents[k] for k in alive])[0]
        self._steps += 1
        for offset, k in enumerate(alive):
            self._parents[k] = first_slot + offset
        self._fed.append([self._parents[k] if k in alive else -1 for k in range(self._K)])
        return logits

    def draw(self, logits: Tensor) -> None:
        """Draw a further token of each sequence that does not stop at its logits [alive, V]."""
        stop, policy = self._context.stop, self._context.policy
        # 1. Leave out the sequences whose rule stops before a further token.
        going = [
            (offset, k)
            for offset, k in enumerate(self.alive)
            if not stop.stops(logits[offset], policy)
        ]
        self.alive = [k for _, k in going]
        if not going:
            return
        # 2. Draw one token for each of the others.
        chosen = [offset for offset, _ in going]
        further = logits if len(chosen) == len(logits) else logits[chosen]
        tokens, q = policy.draw_with_distribution(further, self._context.random_source)
        for k in self.alive:
            self._lengths[k] += 1
        # A token once drawn is submitted, also where the rule stops after it.
        is_last = [
            stop.stops_after(logits[offset], tokens[row], policy)
            for row, offset in enumerate(chosen)
        ]
        # 3. Append for all that drew, before some of them leave `alive`.
        self._append(tokens, q)
        self.alive = [k for k, stops in zip(self.alive, is_last, strict=True) if not stops]

    def _append(self, tokens: Tensor, q: Tensor) -> None:
        """One more position; the rows of sequences that stopped before are filled up."""
        if len(self.alive) < self._K:
            # The filler is never verified: `bundle` cuts each sequence to its length.
            at = torch.tensor(self.alive, device=tokens.device)
            tokens = self.drawn[-1].index_copy(0, at, tokens)
            q = torch.zeros_like(self._rows[0]).index_copy(0, at, q)
        self.drawn.append(tokens)
        self._rows.append(q)

    def bundle(self) -> Bundle:
        table = torch.stack(self.drawn, dim=1).tolist()
        lengths = self._lengths
        tree = Tree.of([row[: lengths[k]] for k, row in enumerate(table)])
        # [K, L, V] -> [K * L, V]: `Tree.of` expects row k * L + i.
        q = torch.stack(self._rows, dim=1)[:, : max(lengths)].reshape(-1, self._rows[0].shape[-1])
        slots = _slots(tree, table, lengths, self._fed)
        return Bundle(tree, q, slots, self._steps, sum(lengths))


def _slots(
    tree: Tree, table: list[list[int]], lengths: list[int], fed: list[list[int]]
) -> tuple[dict[int, int], ...]:
    """For each node, its slot in the draft's cache for each sequence that fed it."""
    slots: list[dict[int, int]] = [{} for _ in range(len(tree))]
    for k, length in enumerate(lengths):
        context = 0
        for position in range(length):
            node = tree.child(context, table[k][position])
            assert node is not None
            # The draft feeds a token only to draw another one, so the last one may be unread.
            if position < len(fed) and fed[position][k] >= 0:
                slots[node][k] = fed[position][k]
            context = node + 1
    return tuple(slots)
