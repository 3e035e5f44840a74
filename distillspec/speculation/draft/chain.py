"""One sequence, token after token: x_i ~ q_i."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.verdict import Rule, Verdict


class Chain(NamedTuple):
    """tokens: long [G]; q: [G, V], the distribution each token was drawn from; steps: forwards."""

    tokens: Tensor
    q: Tensor
    steps: int

    @property
    def drafted(self) -> int:
        return self.tokens.shape[0]

    @property
    def length(self) -> int:
        return self.drafted

    def score(self, target: Runner, head: Tensor) -> Tensor:
        return target.feed(torch.cat([head, self.tokens]).unsqueeze(0))[0]

    def judge(self, rule: Rule, p: Tensor, chance: Chance) -> Verdict:
        return rule(p, self.q, self.tokens, chance)

    def keep(self, target: Runner, draft: Runner, committed: int, verdict: Verdict) -> None:
        held = committed + verdict.accepted
        target.rollback(held)
        draft.rollback(min(held, draft.length))  # it was not fed the last token it drew

    def is_whole(self, verdict: Verdict) -> bool:
        return verdict.accepted == self.drafted


class ChainDraft:
    def slots(self, gamma: int) -> int:
        return gamma

    def propose(
        self,
        runner: Runner,
        pending: Tensor,
        gamma: int,
        policy: SamplingPolicy,
        chance: Chance,
        stop: StopRule,
    ) -> Chain:
        """Draft up to gamma tokens; the last one drawn is not fed to the draft.

        With gamma 0 the runner is left alone and the proposal is empty.
        """
        if gamma == 0:
            nothing = pending.new_empty(0)
            return Chain(nothing, nothing.new_empty((0, runner.vocabulary)), steps=0)
        distributions: list[Tensor] = []
        tokens: list[Tensor] = []
        logits = runner.feed(pending.unsqueeze(0))[0, -1]
        steps = 1
        while True:
            token, q = policy.draw_with_distribution(logits, chance)
            distributions.append(q)
            tokens.append(token)
            if len(tokens) == gamma or stop.stops_after(logits, token, policy):
                break
            logits = runner.feed(token.view(1, 1))[0, -1]
            steps += 1
            if stop.stops(logits, policy):
                break
        return Chain(torch.stack(tokens), torch.stack(distributions), steps)
