"""Step times of a pair, timed in rounds that stand alone; never taken from decoding a text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median, quantiles
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.methods.step_times import Clock, StepTimes
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.decoding.observers import DecodedRound, RoundObserver
from distillspec.speculation.draft.chain import Chain
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.draft.proposal import DraftContext, DraftRule, Proposal
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import RoundRecord
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

_WARM_UP = 3
_TARGET_STEPS = 4  # timed together, as in autoregressive decoding
ROUNDS = 30


def measure_steps(
    target: Runner,
    drafts: Mapping[str, Runner],
    configurations: Sequence[Configuration],
    prompt: Tensor,
    *,
    policy: SamplingPolicy,
    random_source: RandomSource,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> StepTimes:
    """Time every kind of step after a prompt, for one method at its block sizes.

    The kinds take turns in an order that rotates, so that drift meets all alike. The first turns
    are dropped.

    Args:
        target: The target model.
        drafts: The draft models by name.
        configurations: The method at its block sizes.
        prompt: long [T], T >= 1.
        policy: What makes a distribution of logits.
        random_source: The source of random choices.
        rounds: Rounds of each kind that count.
        clock: Seconds since some moment.
    """
    bench = _Bench(target, drafts, prompt, policy, random_source, clock)
    blocks = _blocks(configurations)
    kinds = [(gamma, name) for gamma in blocks for name in drafts]
    samples = _Samples(list(blocks), list(drafts))
    # Turns below 0 are the warm-up.
    for turn_number in range(-_WARM_UP, rounds):
        seconds = bench.target_step()
        is_counted = turn_number >= 0
        if is_counted:
            samples.target.append(seconds)
        # A remainder is never negative in Python, so warm-up turns rotate too.
        turn = turn_number % len(kinds)
        for gamma, name in kinds[turn:] + kinds[:turn]:
            timed = bench.round(blocks[gamma], drafts[name])
            if is_counted:
                samples.add(gamma, name, timed)
    return samples.medians(policy.temperature)


def _blocks(configurations: Sequence[Configuration]) -> dict[int, Configuration]:
    """The method by gamma, with blocks of full length; a stop rule is asked and not obeyed.

    Where blocks may end early, it also has gammas of half the size, of a quarter and so on.
    """
    blocks: dict[int, Configuration] = {}
    for configuration in configurations:
        gamma = configuration.gamma
        ends_early = not isinstance(configuration.stop, FixedLength) or isinstance(
            configuration.draft, LookupDraft
        )
        sizes = [gamma]
        while ends_early and sizes[-1] > 1:
            sizes.append(sizes[-1] // 2)
        for size in sizes:
            blocks[size] = replace(
                configuration,
                gamma=size,
                draft=_FullLength(configuration.draft),
                stop=_Asked(configuration.stop),
            )
    return dict(sorted(blocks.items()))


class _Asked(StopRule):
    """Asks a rule, which takes its time, and never stops."""

    def __init__(self, rule: StopRule) -> None:
        self._rule = rule
        self.reads_entropy = rule.reads_entropy

    def begins(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> None:
        self._rule.begins(logits, policy, entropy)

    def stops(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> bool:
        self._rule.stops(logits, policy, entropy)
        return False

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        self._rule.stops_after(logits, token, policy)
        return False


class _FullLength:
    """A draft rule whose lookups are filled up: any tokens will do, since only time counts."""

    def __init__(self, rule: DraftRule) -> None:
        self._rule = rule

    def slots(self, gamma: int) -> int:
        return self._rule.slots(gamma)

    def propose(self, context: DraftContext, gamma: int) -> Proposal:
        proposal = self._rule.propose(context, gamma)
        if proposal.steps or proposal.drafted == self.slots(gamma):
            return proposal
        return Chain.certain(context, [context.text[-1]] * gamma)


class _Timed(NamedTuple):
    """A round in seconds, by parts, and what its draft takes more with two tokens to read."""

    drafting: float
    verifying: float
    unread: float
    steps: int
    drafted: int


class _Samples:
    """The seconds of every counted step, by kind."""

    def __init__(self, gammas: Sequence[int], drafts: Sequence[str]) -> None:
        self._gammas, self._drafts = gammas, drafts
        self.target: list[float] = []
        self._timed: dict[tuple[int, str], list[_Timed]] = {
            (gamma, name): [] for gamma in gammas for name in drafts
        }

    def add(self, gamma: int, draft: str, timed: _Timed) -> None:
        self._timed[gamma, draft].append(timed)

    def medians(self, temperature: float) -> StepTimes:
        drafting = {kind: [one.drafting for one in timed] for kind, timed in self._timed.items()}
        verifying = {gamma: [one.verifying for one in self._of(gamma)] for gamma in self._gammas}
        kinds = (self.target, *drafting.values(), *verifying.values())
        return StepTimes(
            temperature=temperature,
            target_seconds=median(self.target),
            verify_seconds={gamma: median(seconds) for gamma, seconds in verifying.items()},
            drafted={gamma: self._of(gamma)[0].drafted for gamma in self._gammas},
            steps={gamma: self._of(gamma)[0].steps for gamma in self._gammas},
            draft_seconds={
                name: {gamma: median(drafting[gamma, name]) for gamma in self._gammas}
                for name in self._drafts
            },
            unread_seconds={name: self._unread(name) for name in self._drafts},
            samples=len(self.target),
            spread=max(_spread(seconds) for seconds in kinds),
        )

    def _of(self, gamma: int) -> list[_Timed]:
        return [one for name in self._drafts for one in self._timed[gamma, name]]

    def _unread(self, draft: str) -> float:
        """The median over all gammas: only the first step of a draft differs."""
        return max(
            0.0,
            median(one.unread for gamma in self._gammas for one in self._timed[gamma, draft]),
        )


def _spread(seconds: Sequence[float]) -> float:
    """Distance between the quartiles, as a share of the median."""
    lower, middle, upper = quantiles(seconds, n=4)
    return (upper - lower) / middle if middle else 0.0  # no draft step, no time


class _DraftClock(RoundObserver):
    """Reads the clock after the draft, and keeps the proposal's counts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.drafted_at = 0.0
        self.steps = self.tokens = 0

    def drafted(self, draft: Runner | None) -> None:
        if draft is not None:
            draft.synchronize()
        self.drafted_at = self._clock()

    def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
        self.steps, self.tokens = decoded.proposal.steps, decoded.proposal.drafted
        return record


class _Bench:
    """Times rounds of the engine without decoding on: each starts from the prompt, and is undone.

    Each step is timed next to the steps that surround it in decoding, which decides what the
    processor's caches hold. A one-token target step follows another one, and a round follows a
    round of its kind.
    """

    def __init__(
        self,
        target: Runner,
        drafts: Mapping[str, Runner],
        prompt: Tensor,
        policy: SamplingPolicy,
        random_source: RandomSource,
        clock: Clock,
    ) -> None:
        self._target, self._policy, self._random_source = target, policy, random_source
        self._clock = clock
        self._prompt = prompt
        self._held = len(prompt) - 1
        for runner in (target, *drafts.values()):
            runner.reset()
            if self._held:
                runner.feed(prompt[:-1].unsqueeze(0))

    def target_step(self) -> float:
        """Seconds of a one-token target step."""
        room = min(self._target.capacity, self._target.positions) - self._held
        steps = min(_TARGET_STEPS, room)
        # The first steps follow a verification; only the second ones follow steps of their kind.
        for _ in range(2):
            token = self._prompt[-1]
            doubts = torch.zeros((), device=token.device)
            # Devices work asynchronously, so both clock readings wait first.
            self._target.synchronize()
            started = self._clock()
            for _ in range(steps):
                logits = self._target.feed(token.view(1, 1))[0, -1]
                token, doubt = self._policy.draw_with_doubt(logits, self._random_source)
                doubts = doubts + doubt
            self._target.synchronize()
            seconds = (self._clock() - started) / steps
            self._target.rollback(self._held)
        return seconds

    def round(self, configuration: Configuration, draft: Runner) -> _Timed:
        """Time a round after one of its kind, and one whose draft has two tokens to read.

        A draft that needs no step of a model has all of its time in `verifying`.
        """
        clock = _DraftClock(self._clock)
        decoder = SpeculativeDecoder(
            self._target,
            {configuration.model: draft} if configuration.model else draft,
            configuration,
            self._policy,
            self._random_source,
            observers=[clock],
        )
        room = configuration.gamma + 1

        def decode(text: Tensor) -> tuple[float, float]:
            """Decode a round, and take it back: seconds of its draft, and of all else."""
            draft.synchronize()
            started = self._clock()
            next(decoder.rounds_after(text, room))
            self._target.synchronize()
            done = self._clock()
            self._target.rollback(self._held)
            draft.rollback(self._held)
            return clock.drafted_at - started, done - clock.drafted_at

        decode(self._prompt)
        drafting, verifying = decode(self._prompt)
        steps, tokens = clock.steps, clock.tokens
        if steps == 0:
            return _Timed(0.0, drafting + verifying, 0.0, 0, tokens)
        # One more token of text, which the target has read and the draft has not.
        self._target.feed(self._prompt[-1:].unsqueeze(0))
        self._target.synchronize()
        unread = decode(torch.cat([self._prompt, self._prompt[-1:]]))[0] - drafting
        return _Timed(drafting, verifying, unread, steps, tokens)
