"""EXP3Spec: arms drawn by weights that no adversary can exploit (2505.15141)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.statistics import arms_of, read_arms
from distillspec.speculation.random_source import RandomSource


class EXP3:
    """Arm i with probability proportional to exp(-rate_t sum of its loss estimates).

    The estimate of a round is loss / p_i for the arm that was drawn, 0 for the others; rate_t =
    scale sqrt(log A / (t A)), A arms, round t. scale: 1 is published. Where losses are centred,
    loss is what the round lost beyond the mean of those before it: all arms' expectations shift
    alike, which no probability notices, and the estimates scatter less.
    """

    watches = ()

    def __init__(
        self,
        arms: Sequence[Configuration],
        reward: Reward,
        chance: RandomSource,
        *,
        scale: float = 1.0,
        is_centred: bool = False,
    ) -> None:
        assert arms
        self._arms = list(arms)
        self._reward, self._chance, self._scale = reward, chance, scale
        self._is_centred = is_centred
        self._losses = [0.0] * len(arms)
        self._lost = 0.0
        self._rounds = 0
        self._chosen = 0

    def probabilities(self) -> list[float]:
        """Of each arm, in the next round."""
        A = len(self._arms)
        rate = self._scale * math.sqrt(math.log(max(A, 2)) / ((self._rounds + 1) * A))
        least = min(self._losses)
        weights = [math.exp(-rate * (loss - least)) for loss in self._losses]
        return [weight / sum(weights) for weight in weights]

    def begin(self) -> None:
        """What it knows is not of one text."""

    def choose(self) -> Configuration:
        distribution = torch.tensor(self.probabilities(), dtype=torch.float64)
        self._chosen = int(self._chance.draw(distribution))
        return self._arms[self._chosen]

    def learn(self, outcome: RoundOutcome) -> None:
        share = self.probabilities()[self._chosen]
        loss = self._reward.loss(outcome.tokens, outcome.seconds)
        usual = self._lost / self._rounds if self._rounds and self._is_centred else 0.0
        self._losses[self._chosen] += (loss - usual) / share
        self._lost += loss
        self._rounds += 1

    def state(self) -> dict[str, Any]:
        values = [[loss, self._rounds, self._lost] for loss in self._losses]
        return {"kind": "exp3", "arms": arms_of(self._arms, values)}

    def restore(self, state: Any, *, where: str) -> None:
        values = read_arms(state, "exp3", self._arms, 3, where)
        self._losses = [one[0] for one in values]
        self._rounds, self._lost = int(values[0][1]), values[0][2]
