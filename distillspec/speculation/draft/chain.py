"""One sequence, token after token: x_i ~ q_i."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.speculation.draft.proposal import DraftContext
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import EntropyRunner, Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.result import Rule, VerifyResult


class Chain(NamedTuple):
    """tokens: long [G]; q: [G, V], the distribution each token was drawn from; steps: forwards."""

    tokens: Tensor
    q: Tensor
    steps: int

    @classmethod
    def empty(cls, basis: DraftContext) -> Chain:
        """Nothing drafted, no forward made."""
        nothing = basis.head[:0]
        return cls(nothing, nothing.new_empty((0, basis.vocab_size), dtype=torch.float32), steps=0)

    @classmethod
    def certain(cls, basis: DraftContext, tokens: Sequence[int]) -> Chain:
        """These, each from a distribution that knows no other; no forward made."""
        drawn = basis.head.new_tensor(tokens)
        q = torch.zeros((len(tokens), basis.vocab_size), device=drawn.device)
        return cls(drawn, q.scatter_(1, drawn.unsqueeze(1), 1.0), steps=0)

    @property
    def drafted(self) -> int:
        return self.tokens.shape[0]

    @property
    def length(self) -> int:
        return self.drafted

    def score(self, target: Runner, head: Tensor) -> Tensor:
        return target.feed(torch.cat([head, self.tokens]).unsqueeze(0))[0]

    def verify(self, rule: Rule, p: Tensor, chance: RandomSource) -> VerifyResult:
        return rule(p, self.q, self.tokens, chance)

    def commit(
        self, target: Runner, draft: Runner | None, committed: int, verdict: VerifyResult
    ) -> None:
        held = committed + verdict.accepted
        target.rollback(held)
        if draft is not None:
            draft.rollback(min(held, draft.length))  # it was not fed the last token it drew

    def is_whole(self, verdict: VerifyResult) -> bool:
        return verdict.accepted == self.drafted


class ChainDraft:
    def slots(self, gamma: int) -> int:
        return gamma

    def propose(self, basis: DraftContext, gamma: int) -> Chain:
        """Draft up to gamma tokens; the last one drawn is not fed to the draft.

        With gamma 0 the runner is left alone and the proposal is empty.
        """
        assert gamma >= 0
        if gamma == 0:
            return Chain.empty(basis)
        runner, policy, chance, stop = basis.runner, basis.policy, basis.chance, basis.stop
        distributions: list[Tensor] = []
        tokens: list[Tensor] = []
        read = _reader(runner, policy, stop)
        logits, _ = read(basis.pending().unsqueeze(0))
        steps = 1
        while True:
            token, q = policy.draw_with_distribution(logits, chance)
            distributions.append(q)
            tokens.append(token)
            if len(tokens) == gamma or stop.stops_after(logits, token, policy):
                break
            logits, entropy = read(token.view(1, 1))
            steps += 1
            if stop.stops(logits, policy, entropy):
                break
        return Chain(torch.stack(tokens), torch.stack(distributions), steps)


def _reader(
    runner: Runner, policy: SamplingPolicy, stop: StopRule
) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    """Feeds long [1, G] -> logits [V] after the last token, and their entropy if the model tells.

    Single tokens go one way, wanted or not: another graph has a copy of the weights to bring along.
    """
    if stop.reads_entropy and isinstance(runner, EntropyRunner) and runner.tells_entropy:
        teller, temperature = runner, policy.reading_temperature

        def with_entropy(tokens: Tensor) -> tuple[Tensor, Tensor | None]:
            if tokens.shape[1] > 1:
                return runner.feed(tokens)[0, -1], None
            logits, entropy = teller.feed_for_entropy(tokens, temperature)
            return logits[0, -1], entropy

        return with_entropy
    return lambda tokens: (runner.feed(tokens)[0, -1], None)
