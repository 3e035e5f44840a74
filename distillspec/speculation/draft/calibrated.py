"""AdaEDL whose threshold follows from measured costs and from acceptance seen so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from distillspec.speculation.draft.entropy import guessed_acceptance
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.round_times import RoundTimes
from distillspec.speculation.sampling import SamplingPolicy

_BINS = 12  # of the guess, each 0.1 wide; the last one holds all guesses of 0 and less
_GUESS_WEIGHT = 4.0  # positions that the published guess counts as
_FIRST_ROUNDS = 8.0  # rounds that the target's own speed counts as
_KEEP = 0.998  # weight of a round after each further one: text changes


class CalibratedAdaEDL(StopRule):
    """Stop where a further drafted token gains less than its time is worth.

    A round is worth its tokens minus the rate of the rounds so far times its time. At the highest
    rate no choice of lengths has a positive mean worth, so the rule stops where the gain of every
    longer draft falls below its price (renewal-reward; Dinkelbach's iteration finds the rate).

    A further token is emitted if it and all before it are accepted. AdaEDL's guess from the
    entropy, 1 - sqrt(0.2 H), is calibrated: each range of it has counts of how often verification
    kept such a token. Before a step, the next token's entropy is unknown. The counts of tokens that
    followed a kept one in the same range stand for it.

    Only positions that verification reached count. Times are those of the cost model, not of a
    clock. So decoding repeats itself where the step times are the same.

    Source: the guess is of AdaEDL, 2410.18351; its threshold is replaced.
    """

    reads_entropy = True

    def __init__(self, times: RoundTimes, gamma: int) -> None:
        """Make a rule that knows nothing yet of acceptance.

        Args:
            times: Of rounds of this method.
            gamma: The most tokens of a draft.
        """
        lengths = range(gamma + 1)
        self._times = times
        # Prices of n steps, and of verifying n tokens, in one-token target steps.
        self._drafting = [times.between(n, 0) - times.between(0, 0) for n in lengths]
        self._verifying = [times.between(0, n) for n in lengths]
        self._tokens = self._time = _FIRST_ROUNDS
        guesses = [min(0.95, max(0.05, 0.95 - number / 10)) for number in range(_BINS)]
        self._kept = [_GUESS_WEIGHT * guess for guess in guesses]
        self._reached = [_GUESS_WEIGHT] * _BINS
        self._next_kept, self._next_reached = [0.0] * _BINS, [0.0] * _BINS
        self._was_whole = False
        self._begin()

    def begins(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> None:
        self._begin()
        self._see(logits, policy, entropy)

    def stops(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> bool:
        drawn = len(self._seen)
        self._see(logits, policy, entropy)
        # The step is paid; its token only has to be worth its verification.
        paid = self._drafting[min(drawn + 1, len(self._drafting) - 1)]
        self._stopped_late = not self._pays(drawn, self._chance, paid)
        return self._stopped_late

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        drawn = len(self._seen)
        following = self._next_acceptance(self._seen[-1])
        return not self._pays(drawn, self._chance * following, self._drafting[drawn])

    def state(self) -> list[float]:
        learnt = (self._kept, self._reached, self._next_kept, self._next_reached)
        return [self._tokens, self._time, *(number for numbers in learnt for number in numbers)]

    def restore(self, state: Sequence[float]) -> None:
        self._tokens, self._time = state[:2]
        self._kept, self._reached, self._next_kept, self._next_reached = (
            list(state[2 + part * _BINS : 2 + (part + 1) * _BINS]) for part in range(4)
        )
        self._was_whole = False

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        # A round without a draft shows nothing about acceptance.
        if length == 0:
            return
        steps = length + self._stopped_late
        seconds = self._times.between(steps, length, float(self._was_whole))
        # The next prompt's first round is charged for it too: one step in a text.
        self._was_whole = accepted == length == steps
        self._tokens = _KEEP * self._tokens + accepted + 1
        self._time = _KEEP * self._time + seconds
        for position, number in enumerate(self._seen[: min(length, accepted + 1)]):
            is_kept = float(position < accepted)
            self._kept[number] = _KEEP * self._kept[number] + is_kept
            self._reached[number] = _KEEP * self._reached[number] + 1.0
            if position:
                before = self._seen[position - 1]
                self._next_kept[before] = _KEEP * self._next_kept[before] + is_kept
                self._next_reached[before] = _KEEP * self._next_reached[before] + 1.0

    def _begin(self) -> None:
        self._seen: list[int] = []  # range of the guess, by position
        self._chance = 1.0  # that all of these positions are accepted
        self._stopped_late = False

    def _see(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None) -> None:
        guess = guessed_acceptance(logits, policy, entropy)
        # NaN counts as unsure: verification names the model whose logits are no distribution.
        unsure = 2.0 if math.isnan(guess) else 1.0 - guess
        number = min(_BINS - 1, max(0, int(unsure * 10.0)))
        self._seen.append(number)
        self._chance *= self._kept[number] / self._reached[number]

    def _next_acceptance(self, number: int) -> float:
        """Acceptance of a token after one with a guess in this range that was kept."""
        mean = sum(self._kept) / sum(self._reached)
        kept = self._next_kept[number] + _GUESS_WEIGHT * mean
        return kept / (self._next_reached[number] + _GUESS_WEIGHT)

    def _pays(self, drawn: int, first: float, paid: float) -> bool:
        """Whether some longer draft gains more tokens than its time is worth.

        Args:
            drawn: Tokens drawn.
            first: Probability that the next token and all before it are accepted.
            paid: Price of the steps that are made already.
        """
        rate = self._tokens / self._time
        spent = paid + self._verifying[drawn]
        mean = sum(self._kept) / sum(self._reached)
        gain, reach = 0.0, first
        for length in range(drawn + 1, len(self._drafting)):
            gain += reach
            reach *= mean
            # The step of the next token may be paid already.
            price = max(paid, self._drafting[length]) + self._verifying[length] - spent
            if gain > rate * price:
                return True
        return False
