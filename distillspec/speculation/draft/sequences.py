"""Several sequences at once: K drawn independently, or K that begin differently."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distillspec.speculation.draft.proposal import DraftContext
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.tree import Tree
from distillspec.speculation.verify.result import Rule, VerifyResult


@dataclass(frozen=True)
class Bundle:
    """Drafted sequences, what they have in common stored once.

    q: [K * L, V], row k * L + i is what token i of sequence k was drawn from. slots: by node, each
    sequence that fed it, with the place it has in the draft's cache for that one. drafted: tokens
    drawn.
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
        """One forward; a shared beginning is read once."""
        root = target.length  # the slot of head
        tokens = torch.cat([head, head.new_tensor(self.tree.tokens)])
        parents = [root - 1, *(root + parent for parent in self.tree.parents)]
        return target.feed_tree(tokens, parents)[0]

    def verify(self, rule: Rule, p: Tensor, chance: RandomSource) -> VerifyResult:
        return rule(p, self.q, self.tree, chance)

    def commit(
        self, target: Runner, draft: Runner | None, committed: int, verdict: VerifyResult
    ) -> None:
        assert draft is not None, "sequences are drafted with a model"
        path = self._path(verdict)
        target.keep(committed, [committed + node for node in path])
        draft.keep(min(committed, draft.length), self._fed(path))

    def is_whole(self, verdict: VerifyResult) -> bool:
        path = self._path(verdict)
        return not self.tree.drawn[path[-1] + 1 if path else 0]

    def _fed(self, path: list[int]) -> list[int]:
        """Where the draft's cache has a path as far as it was fed: all of it in one sequence.

        What sequences share each of them has fed for itself, and what follows sees its own copy.
        """
        deepest = max((node for node in path if self.slots[node]), default=None)
        if deepest is None:
            return []
        sequence = next(iter(self.slots[deepest]))
        return [self.slots[node][sequence] for node in path if node <= deepest]

    def _path(self, verdict: VerifyResult) -> list[int]:
        """The nodes that were kept."""
        context, path = 0, []
        for token in verdict.tokens[: verdict.accepted]:
            node = self.tree.child(context, token)
            assert node is not None, "a rule keeps what was drafted"
            path.append(node)
            context = node + 1
        return path


@dataclass(frozen=True)
class SequencesDraft:
    """count: K, the sequences, each one row of every forward of the draft.

    distinct: the first tokens are drawn without replacement, so that no two sequences begin alike.
    """

    count: int
    distinct: bool = False

    def slots(self, gamma: int) -> int:
        return self.count * gamma

    def propose(self, basis: DraftContext, gamma: int) -> Bundle:
        """Draft K sequences of up to gamma tokens; the last tokens drawn are not fed to the draft.

        Each sequence stops by itself; a stop rule waits for the host once a sequence and step.
        """
        assert gamma >= 0
        if gamma == 0:
            nothing = torch.empty((0, basis.vocab_size), device=basis.head.device)
            return Bundle(Tree.of([]), nothing, (), steps=0, drafted=0)
        runner, policy, chance, stop = basis.runner, basis.policy, basis.chance, basis.stop
        logits = runner.feed(basis.pending().unsqueeze(0))[0, -1]
        steps = 1
        root = policy.distribution(logits)
        tokens = self.first(root, chance)
        K = len(tokens)
        drawn, rows = [tokens], [root.expand(K, -1)]
        fed: list[list[int]] = []  # by position, the slots of the K sequences
        alive = [k for k in range(K) if not stop.stops_after(logits, tokens[k], policy)]
        lengths = [1] * K
        parents = [runner.length - 1] * K
        while alive and len(drawn) < gamma:
            first_slot = runner.length
            fed_tokens = drawn[-1] if len(alive) == K else drawn[-1][alive]
            logits = runner.feed_tree(fed_tokens, [parents[k] for k in alive])[0]
            steps += 1
            for offset, k in enumerate(alive):
                parents[k] = first_slot + offset
            fed.append([parents[k] if k in alive else -1 for k in range(K)])
            going = [
                (offset, k)
                for offset, k in enumerate(alive)
                if not stop.stops(logits[offset], policy)
            ]
            if not going:
                break
            alive = [k for _, k in going]
            chosen = [offset for offset, _ in going]
            further = logits if len(chosen) == len(logits) else logits[chosen]
            token, q = policy.draw_with_distribution(further, chance)
            for k in alive:
                lengths[k] += 1
            unsure = [
                stop.stops_after(logits[offset], token[row], policy)
                for row, (offset, _) in enumerate(going)
            ]
            if len(alive) == K:
                drawn.append(token)
                rows.append(q)
            else:
                at = torch.tensor(alive, device=token.device)
                drawn.append(drawn[-1].index_copy(0, at, token))
                rows.append(torch.zeros_like(rows[0]).index_copy(0, at, q))
            alive = [k for k, is_last in zip(alive, unsure, strict=True) if not is_last]
            if not alive:
                break
        table = torch.stack(drawn, dim=1).tolist()
        tree = Tree.of([row[: lengths[k]] for k, row in enumerate(table)])
        q_rows = torch.stack(rows, dim=1)[:, : max(lengths)].reshape(-1, root.shape[-1])
        return Bundle(tree, q_rows, _slots(tree, table, lengths, fed), steps, sum(lengths))

    def first(self, root: Tensor, chance: RandomSource) -> Tensor:
        """First tokens from q [V] -> long [K], or fewer distinct ones where q has fewer."""
        if not self.distinct:
            return chance.draw(root.expand(self.count, -1))
        left, tokens = root.clone(), []
        for _ in range(max(1, min(self.count, int((root > 0.0).sum())))):
            token = chance.draw(left)
            left[token] = 0.0
            tokens.append(token)
        return torch.stack(tokens)


def _slots(
    tree: Tree, table: list[list[int]], lengths: list[int], fed: list[list[int]]
) -> tuple[dict[int, int], ...]:
    """By node, where the draft's cache has it for each sequence that fed it."""
    slots: list[dict[int, int]] = [{} for _ in range(len(tree))]
    for k, length in enumerate(lengths):
        context = 0
        for position in range(length):
            node = tree.child(context, table[k][position])
            assert node is not None
            if position < len(fed) and fed[position][k] >= 0:
                slots[node][k] = fed[position][k]
            context = node + 1
    return tuple(slots)
