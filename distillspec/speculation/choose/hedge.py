"""Hedge with full information: every arm learns from every round, also of other arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.imagined import ChainRounds, ImaginedRounds, LookupRounds
from distillspec.speculation.choose.statistics import arms_of, read_arms
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.verify.token import verify_token


class Hedge:
    """Draws arm i with probability proportional to exp(-rate_t loss_i) after t emitted tokens.

    loss_i is the expected number of rounds that arm i alone would have taken to emit these tokens.
    It is at most one per token, so the regret is that of the stopping time. The rate is rate_t =
    scale sqrt(8 log A / t) for A arms.

    If the reward is tokens per second, each loss is weighted by the arm's mean seconds per round
    over those of the slowest arm. Only these means need rounds that the arm itself decoded. So arms
    that decoded fewer than 1 + log(1 + rounds/A) rounds go first; one slow moment is then corrected
    later. The bound of the rate holds for rounds, not for seconds, whose weights are learnt on the
    way.

    Arms must be chains of fixed length under token verification, or lookups: only for these are the
    expected rounds known. Every draft model among them reads all emitted tokens in every round.

    Source of the rate: Cesa-Bianchi and Lugosi, Prediction, Learning, and Games, 2006, theorem 2.3.
    Source of full information from the one target pass: HedgeSpec (2510.20064).
    """

    def __init__(
        self,
        arms: Sequence[Configuration],
        reward: Reward,
        random_source: RandomSource,
        *,
        scale: float = 1.0,
    ) -> None:
        """Make a chooser that knows nothing yet.

        Args:
            arms: The configurations to choose from, at least 1.
            reward: What is maximised.
            random_source: The source of the draws.
            scale: Factor of the rate; 1 is the theorem's value.
        """
        assert arms
        self._arms = list(arms)
        self._reward, self._random_source, self._scale = reward, random_source, scale
        self._imagined = [_imagined(arm) for arm in arms]
        models = [arm.model for arm in arms if isinstance(arm.draft, ChainDraft)]
        self.watches: tuple[str | None, ...] = tuple(dict.fromkeys(models))
        self._tokens = 0
        self._rounds = [0.0] * len(arms)  # expected number, for each arm alone
        self._timed = [0] * len(arms)
        self._seconds = [0.0] * len(arms)
        self._reached = -1  # length of the text at the last `learn`
        self._chosen = 0

    def probabilities(self) -> list[float]:
        """Probability of each arm in the next round, once each arm has been timed."""
        losses = self._losses()
        rate = self._scale * math.sqrt(8.0 * math.log(len(self._arms)) / max(1, self._tokens))
        # The shift cancels in the quotient. It keeps the weights from all becoming 0.
        weights = [math.exp(-rate * (loss - min(losses))) for loss in losses]
        return [weight / sum(weights) for weight in weights]

    def begin(self) -> None:
        self._reached = -1

    def choose(self) -> Configuration:
        least = min(range(len(self._arms)), key=self._timed.__getitem__)
        enough = 1.0 + math.log1p(sum(self._timed) / len(self._arms))
        if self._reward.counts_seconds and self._timed[least] < enough:
            self._chosen = least
        else:
            distribution = torch.tensor(self.probabilities(), dtype=torch.float64)
            self._chosen = int(self._random_source.draw(distribution))
        return self._arms[self._chosen]

    def learn(self, outcome: RoundOutcome) -> None:
        self._timed[self._chosen] += 1
        self._seconds[self._chosen] += outcome.seconds
        # A fallback may have decoded rounds that this chooser did not see.
        follows = len(outcome.text) - outcome.fresh == self._reached
        for arm, imagined in enumerate(self._imagined):
            if not follows:  # a new text, or the arm missed rounds
                imagined.begin()
            self._rounds[arm] += imagined.extend(outcome)
        self._tokens += outcome.fresh
        self._reached = len(outcome.text)

    def state(self) -> dict[str, Any]:
        known = zip(self._rounds, self._timed, self._seconds, strict=True)
        return {
            "kind": "hedge",
            "arms": arms_of(self._arms, [[self._tokens, *values] for values in known]),
        }

    def restore(self, state: Any, *, where: str) -> None:
        values = read_arms(state, "hedge", self._arms, 4, where)
        self._tokens = int(values[0][0])
        self._rounds = [rounds for _, rounds, _, _ in values]
        self._timed = [int(timed) for _, _, timed, _ in values]
        self._seconds = [seconds for _, _, _, seconds in values]
        self.begin()

    def _losses(self) -> list[float]:
        """Loss of each arm: its expected rounds, weighted by time if the reward counts seconds."""
        if not self._reward.counts_seconds:
            return self._rounds
        means = [
            seconds / rounds for seconds, rounds in zip(self._seconds, self._timed, strict=True)
        ]
        return [
            rounds * mean / max(means) for rounds, mean in zip(self._rounds, means, strict=True)
        ]


def _imagined(arm: Configuration) -> ImaginedRounds:
    is_known = isinstance(arm.stop, FixedLength) and arm.verify is verify_token
    assert is_known, f"the expected rounds of {arm.name} are not known"
    if isinstance(arm.draft, LookupDraft):
        return LookupRounds(arm.draft.longest, arm.gamma)
    assert isinstance(arm.draft, ChainDraft), f"the expected rounds of {arm.name} are not known"
    return ChainRounds(arm.model, arm.gamma)
