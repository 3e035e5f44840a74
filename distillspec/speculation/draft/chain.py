"""One sequence, token after token: x_i ~ q_i."""

from __future__ import annotations

import torch
from torch import Tensor

from distillspec.speculation.chance import Chance
from distillspec.speculation.draft.proposal import Proposal
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy


class ChainDraft:
    def propose(
        self,
        runner: Runner,
        pending: Tensor,
        gamma: int,
        policy: SamplingPolicy,
        chance: Chance,
        stop: StopRule,
    ) -> Proposal:
        """Draft up to gamma tokens; the last one drawn is not fed to the draft.

        With gamma 0 the runner is left alone and the proposal is empty.
        """
        if gamma == 0:
            nothing = pending.new_empty(0)
            return Proposal(nothing, nothing.new_empty((0, runner.vocabulary)), steps=0)
        distributions: list[Tensor] = []
        tokens: list[Tensor] = []
        logits = runner.feed(pending.unsqueeze(0))[0, -1]
        steps = 1
        while True:
            token, q = policy.draw_with_distribution(logits, chance)
            distributions.append(q)
            tokens.append(token)
            if len(tokens) == gamma:
                break
            logits = runner.feed(token.view(1, 1))[0, -1]
            steps += 1
            if stop.stops(logits, policy):
                break
        return Proposal(torch.stack(tokens), torch.stack(distributions), steps)
