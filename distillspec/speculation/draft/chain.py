"""Chain drafts: one sequence, token after token, x_i ~ q_i."""

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
from distillspec.speculation.verify.result import VerificationRule, VerifyResult


class Chain(NamedTuple):
    """A drafted sequence.

    Attributes:
        tokens: Drafted tokens, long [G].
        q: The distribution each token was drawn from, shape [G, V].
        steps: Forwards of the draft model.
    """

    tokens: Tensor
    q: Tensor
    steps: int

    @classmethod
    def empty(cls, context: DraftContext) -> Chain:
        """A proposal without tokens, made without a forward."""
        nothing = context.head[:0]
        return cls(
            nothing, nothing.new_empty((0, context.vocab_size), dtype=torch.float32), steps=0
        )

    @classmethod
    def certain(cls, context: DraftContext, tokens: Sequence[int]) -> Chain:
        """These tokens, each from a one-hot q, made without a forward."""
        drawn = context.head.new_tensor(tokens)
        q = torch.zeros((len(tokens), context.vocab_size), device=drawn.device)
        return cls(drawn, q.scatter_(1, drawn.unsqueeze(1), 1.0), steps=0)

    @property
    def drafted(self) -> int:
        return self.tokens.shape[0]

    @property
    def length(self) -> int:
        return self.drafted

    def score(self, target: Runner, head: Tensor) -> Tensor:
        return target.feed(torch.cat([head, self.tokens]).unsqueeze(0))[0]

    def verify(
        self, rule: VerificationRule, p: Tensor, random_source: RandomSource
    ) -> VerifyResult:
        return rule(p, self.q, self.tokens, random_source)

    def commit(
        self, target: Runner, draft: Runner | None, committed: int, result: VerifyResult
    ) -> None:
        held = committed + result.accepted
        target.rollback(held)
        if draft is not None:
            draft.rollback(min(held, draft.length))  # the draft did not read its last token

    def is_whole(self, result: VerifyResult) -> bool:
        return result.accepted == self.drafted


class ChainDraft:
    """Drafts one token after another with the draft model."""

    def slots(self, gamma: int) -> int:
        return gamma

    def propose(self, context: DraftContext, gamma: int) -> Chain:
        """Draft up to gamma tokens.

        The model does not read the last token that it draws. With gamma 0 it reads nothing.
        """
        assert gamma >= 0
        if gamma == 0:
            return Chain.empty(context)
        runner, policy, random_source, stop = (
            context.runner,
            context.policy,
            context.random_source,
            context.stop,
        )
        distributions: list[Tensor] = []
        tokens: list[Tensor] = []
        read = _reader(runner, policy, stop)
        # 1. Read the unread committed tokens. The first token is drawn in any case.
        logits, entropy = read(context.pending().unsqueeze(0))
        stop.begins(logits, policy, entropy)
        steps = 1
        while True:
            # 2. Draw a token, and keep the q that verification will use.
            token, q = policy.draw_with_distribution(logits, random_source)
            distributions.append(q)
            tokens.append(token)
            # A token once drawn is submitted, also where the rule stops after it.
            if len(tokens) == gamma or stop.stops_after(logits, token, policy):
                break
            # 3. Read the token. The logits after it may end the draft.
            logits, entropy = read(token.view(1, 1))
            steps += 1
            if stop.stops(logits, policy, entropy):
                break
        return Chain(torch.stack(tokens), torch.stack(distributions), steps)


def _reader(
    runner: Runner, policy: SamplingPolicy, stop: StopRule
) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    """A function that feeds long [1, G] and returns logits [V] after the last token.

    It also returns their entropy if the runner computes it. Single tokens always take the graph
    with the entropy, needed or not: a second graph would hold its own copy of the weights.
    """
    if stop.reads_entropy and isinstance(runner, EntropyRunner) and runner.computes_entropy:
        entropy_runner, temperature = runner, policy.reading_temperature

        def with_entropy(tokens: Tensor) -> tuple[Tensor, Tensor | None]:
            if tokens.shape[1] > 1:
                return runner.feed(tokens)[0, -1], None
            logits, entropy = entropy_runner.feed_for_entropy(tokens, temperature)
            return logits[0, -1], entropy

        return with_entropy
    return lambda tokens: (runner.feed(tokens)[0, -1], None)
