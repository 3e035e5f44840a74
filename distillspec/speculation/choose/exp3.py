"""EXP3Spec: arms are drawn from weights that no adversary can exploit (2505.15141)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from distillspec.speculation.choose.chooser import Reward, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.forecast import Forecast, Prior
from distillspec.speculation.choose.statistics import arms_of, read_arms
from distillspec.speculation.random_source import RandomSource

_UNIFORM = 0.05  # share of the draws that ignore the losses, with a prior


class EXP3:
    """Draws arm i with probability proportional to exp(-rate_t sum of its loss estimates).

    The loss estimate of a round is loss / p_i for the arm that was drawn and 0 for the others. The
    rate is rate_t = scale sqrt(log A / (t A)) for A arms in round t.

    With centred losses, the loss is the distance to the mean loss of the rounds before. All arms'
    expectations then shift alike, which changes no probability, and the estimates scatter less.

    With a prior, each arm's estimate is the loss that the cost model expects of it. The arm that
    was drawn adds (loss - expected loss) / p_i, so each estimate has the right mean, however wrong
    the cost model is. What chains of fixed length emit is known from the rounds of all of them, so
    such a round counts with its expected tokens: only its time can differ from the model. The rate
    is scale sqrt(log A / V) for the sum V of the estimates' variances under p: the better the
    model, the sooner the best arm is chosen. A small share of the draws is uniform, which bounds
    1 / p_i.
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
        prior: Prior | None = None,
    ) -> None:
        """Make a chooser that knows nothing yet.

        Args:
            arms: The configurations to choose from, at least 1.
            reward: What is maximised.
            random_source: The source of the draws.
            scale: Factor of the rate; 1 is the published value.
            is_centred: Whether losses are centred; not with a prior.
            prior: What the cost model knows of the arms; None is the published chooser.
        """
        assert arms
        self._arms = list(arms)
        self._reward, self._random_source, self._scale = reward, random_source, scale
        self._is_centred = is_centred
        self._pseudo = prior.rounds if prior else 0.0
        self._forecast = Forecast(arms, prior) if prior else None
        self._variance = 0.0
        self._losses = [0.0] * len(arms)
        self._total_loss = 0.0
        self._rounds = 0
        self._chosen = 0

    def probabilities(self) -> list[float]:
        """Probability of each arm in the next round."""
        A = len(self._arms)
        if self._forecast is not None:
            return self._informed(self._expected_losses(self._forecast))
        rate = self._scale * math.sqrt(math.log(max(A, 2)) / ((self._rounds + 1) * A))
        return _softmin(self._losses, rate)

    def _informed(self, expected: Sequence[float]) -> list[float]:
        """The same with a prior, from the expected loss of each arm."""
        A = len(self._arms)
        uniform = [1.0 / A] * A
        variance = self._variance + self._pseudo * _variance(expected, uniform)
        losses = [
            loss + self._pseudo * more for loss, more in zip(self._losses, expected, strict=True)
        ]
        if variance == 0.0:  # all arms are expected to be alike, and nothing was seen
            return uniform
        rate = self._scale * math.sqrt(math.log(max(A, 2)) / variance)
        return [(1.0 - _UNIFORM) * share + _UNIFORM / A for share in _softmin(losses, rate)]

    def _expected_losses(self, forecast: Forecast) -> list[float]:
        return [self._reward.loss(*expected) for expected in forecast.filled()]

    def begin(self) -> None:
        """Nothing to do: what the chooser knows holds for every text."""

    def choose(self) -> Configuration:
        distribution = torch.tensor(self.probabilities(), dtype=torch.float64)
        self._chosen = int(self._random_source.draw(distribution))
        return self._arms[self._chosen]

    def learn(self, outcome: RoundOutcome) -> None:
        if self._forecast is not None:
            self._learn_with(self._forecast, outcome)
            return
        # Importance weights need the probability at the draw, so read it before any update.
        share = self.probabilities()[self._chosen]
        loss = self._reward.loss(outcome.tokens, outcome.seconds)
        baseline = self._total_loss / self._rounds if self._rounds and self._is_centred else 0.0
        self._losses[self._chosen] += (loss - baseline) / share
        self._total_loss += loss
        self._rounds += 1

    def _learn_with(self, forecast: Forecast, outcome: RoundOutcome) -> None:
        expected = self._expected_losses(forecast)
        shares = self._informed(expected)
        arm = self._arms[self._chosen]
        # The tokens of one round scatter far more than arms differ.
        tokens = forecast.filled()[self._chosen].tokens if forecast.shares(arm) else outcome.tokens
        loss = self._reward.loss(tokens, outcome.seconds)
        estimates = list(expected)
        estimates[self._chosen] += (loss - expected[self._chosen]) / shares[self._chosen]
        self._variance += _variance(estimates, shares)
        self._losses = [sum(both) for both in zip(self._losses, estimates, strict=True)]
        self._total_loss += loss
        self._rounds += 1
        forecast.learn(arm, outcome)

    def state(self) -> dict[str, Any]:
        # The format has numbers per arm only, so each arm repeats the totals.
        values = [[loss, self._rounds, self._total_loss] for loss in self._losses]
        state: dict[str, Any] = {"kind": "exp3", "arms": arms_of(self._arms, values)}
        if self._forecast is not None:
            state |= {"forecast": self._forecast.state(), "variance": self._variance}
        return state

    def restore(self, state: Any, *, where: str) -> None:
        values = read_arms(state, "exp3", self._arms, 3, where)
        if self._forecast is not None:
            # An older state has losses of another rate and no forecast.
            if "forecast" not in state:
                return
            self._forecast.restore(state["forecast"], where=where)
            self._variance = float(state["variance"])
        self._losses = [loss for loss, _, _ in values]
        self._rounds, self._total_loss = int(values[0][1]), values[0][2]


def _softmin(losses: Sequence[float], rate: float) -> list[float]:
    """Probabilities proportional to exp(-rate loss)."""
    # The shift cancels in the quotient. It keeps the weights from all becoming 0.
    least = min(losses)
    weights = [math.exp(-rate * (loss - least)) for loss in losses]
    return [weight / sum(weights) for weight in weights]


def _variance(values: Sequence[float], shares: Sequence[float]) -> float:
    mean = sum(share * value for share, value in zip(shares, values, strict=True))
    return sum(share * (value - mean) ** 2 for share, value in zip(shares, values, strict=True))
