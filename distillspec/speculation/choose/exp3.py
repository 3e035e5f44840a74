"""EXP3Spec: arms are drawn from weights that no adversary can exploit (2505.15141)."""

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
    """Draws arm i with probability proportional to exp(-rate_t sum of its loss estimates).

    The loss estimate of a round is loss / p_i for the arm that was drawn and 0 for the others. The
    rate is rate_t = scale sqrt(log A / (t A)) for A arms in round t.

    With centred losses, the loss is the distance to the mean loss of the rounds before. All arms'
    expectations then shift alike, which changes no probability, and the estimates scatter less.
    """

    watches = ()

    def __init__(
        self,
        arms: Sequence[Configuration],
        reward: Reward,
        random_source: RandomSource,
        *,
        scale: float = 1.0,
        is_centred: bool = False,
    ) -> None:
        """Make a chooser that knows nothing yet.

        Args:
            arms: The configurations to choose from, at least 1.
            reward: What is maximised.
            random_source: The source of the draws.
            scale: Factor of the rate; 1 is the published value.
            is_centred: Whether losses are centred.
        """
        assert arms
        self._arms = list(arms)
        self._reward, self._random_source, self._scale = reward, random_source, scale
        self._is_centred = is_centred
        self._losses = [0.0] * len(arms)
        self._total_loss = 0.0
        self._rounds = 0
        self._chosen = 0

    def probabilities(self) -> list[float]:
        """Probability of each arm in the next round."""
        A = len(self._arms)
        rate = self._scale * math.sqrt(math.log(max(A, 2)) / ((self._rounds + 1) * A))
        # The shift cancels in the quotient. It keeps the weights from all becoming 0.
        least = min(self._losses)
        weights = [math.exp(-rate * (loss - least)) for loss in self._losses]
        return [weight / sum(weights) for weight in weights]

    def begin(self) -> None:
        """Nothing to do: what the chooser knows holds for every text."""

    def choose(self) -> Configuration:
        distribution = torch.tensor(self.probabilities(), dtype=torch.float64)
        self._chosen = int(self._random_source.draw(distribution))
        return self._arms[self._chosen]

    def learn(self, outcome: RoundOutcome) -> None:
        # Importance weights need the probability at the draw, so read it before any update.
        share = self.probabilities()[self._chosen]
        loss = self._reward.loss(outcome.tokens, outcome.seconds)
        baseline = self._total_loss / self._rounds if self._rounds and self._is_centred else 0.0
        self._losses[self._chosen] += (loss - baseline) / share
        self._total_loss += loss
        self._rounds += 1

    def state(self) -> dict[str, Any]:
        # The format has numbers per arm only, so each arm repeats the totals.
        values = [[loss, self._rounds, self._total_loss] for loss in self._losses]
        return {"kind": "exp3", "arms": arms_of(self._arms, values)}

    def restore(self, state: Any, *, where: str) -> None:
        values = read_arms(state, "exp3", self._arms, 3, where)
        self._losses = [loss for loss, _, _ in values]
        self._rounds, self._total_loss = int(values[0][1]), values[0][2]
