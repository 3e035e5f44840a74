"""Isolated step times of a pair, which the cost model needs; never taken from decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.methods import cost_model
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.draft.chain import Chain
from distillspec.speculation.draft.proposal import DraftContext, Proposal
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import PieceReader, Runner
from distillspec.speculation.sampling import SamplingPolicy

Clock = Callable[[], float]
"""Seconds since some moment."""

_WARM_UP = 3
ROUNDS = 30


@dataclass(frozen=True)
class StepTimes:
    """Medians in seconds, at one temperature.

    Attributes:
        temperature: Of the sampling policy.
        target_seconds: A one-token forward of the target, with the draw of its token.
        verify_seconds: For each gamma, a target forward over the longest block of that gamma, with
            its verification. The block is `drafted` tokens and the one before them.
        drafted: For each gamma, the drafted tokens of that block.
        draft_seconds: For each draft, one step with the draw of its token and the stop rule. 0 for
            a method that drafts without a model; its search is in verify_seconds.
        samples: Rounds that the medians are over.
        spread: The largest distance between the quartiles of a kind of step, as a share of its
            median. Near 0 on a quiet machine.
    """

    temperature: float
    target_seconds: float
    verify_seconds: dict[int, float]
    drafted: dict[int, int]
    draft_seconds: dict[str, float]
    samples: int
    spread: float

    def draft_to_target_time(self, draft: str) -> float:
        """c: one draft step over a one-token target step."""
        return self.draft_seconds[draft] / self.target_seconds

    def verify_time(self, gamma: int) -> float:
        """v: verifying gamma drafted tokens over a one-token target step."""
        return self.verify_seconds[gamma] / self.target_seconds

    def verify_times(self) -> dict[int, float]:
        """v for each gamma."""
        return {gamma: self.verify_time(gamma) for gamma in self.verify_seconds}

    def verify_time_of(self, drafted: float) -> float:
        """v for this mean number of drafted tokens; stop rules and lookups draft less."""
        known = {self.drafted[gamma]: self.verify_time(gamma) for gamma in self.verify_seconds}
        return cost_model.verify_time_between(known, drafted)


def middle_prompt(
    prompts: Iterable[Sequence[int]], drafts: Collection[Runner], slots: int
) -> Sequence[int]:
    """The prompt of middle length, of those that leave the drafts enough room.

    Args:
        prompts: The prompts to choose from.
        drafts: The draft models.
        slots: Tokens that each draft must have room for after the prompt.

    Raises:
        DistillSpecError: No prompt leaves so much room. A draft with another tokenizer may read
            none.
    """
    fitting = [prompt for prompt in prompts if has_room(prompt, drafts, slots)]
    if not fitting:
        raise DistillSpecError(
            f"every prompt is too long: the draft has no room for a block of {slots} of its tokens",
            where="step times of a draft with another tokenizer",
            fix="use shorter prompts, or a draft with a longer context",
        )
    return sorted(fitting, key=len)[len(fitting) // 2]


def has_room(prompt: Sequence[int], drafts: Iterable[Runner], slots: int) -> bool:
    """Whether drafts that read pieces have room for so many tokens after the prompt.

    These drafts are emptied. All others have room: decoding checks it for the prompt and its
    answer.
    """
    for draft in drafts:
        if isinstance(draft, PieceReader):
            draft.reset()
            if min(draft.room_after(prompt)) < slots:
                return False
    return True


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

    The kinds take turns in an order that rotates, so that drift meets all alike. The first rounds
    are dropped.

    Args:
        target: The target model.
        drafts: The draft models by name.
        configurations: The method at its block sizes.
        prompt: long [T], T >= 1.
        policy: What makes a distribution of logits.
        random_source: The source of random choices.
        rounds: Rounds that count.
        clock: Seconds since some moment.
    """
    bench = _Bench(target, drafts, prompt, policy, random_source, clock)
    kinds = [(configuration, name) for configuration in configurations for name in drafts]
    samples = _Samples([configuration.gamma for configuration in configurations], drafts)
    # Rounds below 0 are the warm-up.
    for round_ in range(-_WARM_UP, rounds):
        # The first step follows a verification; only the second follows a step of its kind.
        bench.target_step()
        seconds = bench.target_step()
        is_counted = round_ >= 0
        if is_counted:
            samples.target.append(seconds)
        # A remainder is never negative in Python, so warm-up rounds rotate too.
        turn = round_ % len(kinds)
        for configuration, name in kinds[turn:] + kinds[:turn]:
            draft_seconds, verify_seconds, length = bench.round(configuration, drafts[name])
            if is_counted:
                samples.add(configuration.gamma, name, draft_seconds, verify_seconds, length)
    return samples.medians(policy.temperature)


class _Samples:
    """The seconds of every counted step, by kind."""

    def __init__(self, gammas: Sequence[int], drafts: Collection[str]) -> None:
        self._gammas, self._drafts = gammas, drafts
        self.target: list[float] = []
        self._drafting: dict[tuple[int, str], list[float]] = {
            (gamma, name): [] for gamma in gammas for name in drafts
        }
        self._verifying: dict[int, list[float]] = {gamma: [] for gamma in gammas}
        self._lengths: dict[int, list[int]] = {gamma: [] for gamma in gammas}

    def add(
        self, gamma: int, draft: str, draft_seconds: float, verify_seconds: float, length: int
    ) -> None:
        self._drafting[gamma, draft].append(draft_seconds)
        self._verifying[gamma].append(verify_seconds)
        self._lengths[gamma].append(length)

    def medians(self, temperature: float) -> StepTimes:
        kinds = (self.target, *self._drafting.values(), *self._verifying.values())
        return StepTimes(
            temperature=temperature,
            target_seconds=median(self.target),
            verify_seconds={gamma: median(self._verifying[gamma]) for gamma in self._gammas},
            drafted={gamma: round(median(self._lengths[gamma])) for gamma in self._gammas},
            draft_seconds={name: self._draft_step(name) for name in self._drafts},
            samples=len(self.target),
            spread=max(_spread(seconds) for seconds in kinds),
        )

    def _draft_step(self, draft: str) -> float:
        """Median over the rounds of the mean over the block sizes."""
        by_gamma = (self._drafting[gamma, draft] for gamma in self._gammas)
        # Element i of each list belongs to counted round i.
        means = [sum(seconds) / len(self._gammas) for seconds in zip(*by_gamma, strict=True)]
        return float(median(means))


def _spread(seconds: Sequence[float]) -> float:
    """Distance between the quartiles, as a share of the median."""
    lower, middle, upper = quantiles(seconds, n=4)
    return (upper - lower) / middle if middle else 0.0  # no draft step, no time


class _Bench:
    """Times steps without decoding: each step starts from prompt[:-1] and is taken back.

    Each step is timed next to the steps that surround it in decoding, which decides what the
    processor's caches hold. A one-token target step follows another one, a draft's block follows a
    verification, and a verification follows a draft's block.
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
        self._text = prompt.tolist()
        self._last = prompt[-1:]
        self._held = len(prompt) - 1
        for runner in (target, *drafts.values()):
            runner.reset()
            if self._held:
                runner.feed(prompt[:-1].unsqueeze(0))

    def target_step(self) -> float:
        """Seconds of a one-token target step."""
        with torch.no_grad():
            # Devices work asynchronously, so both clock readings wait first.
            self._target.synchronize()
            started = self._clock()
            logits = self._target.feed(self._last.view(1, 1))[0, -1]
            self._policy.draw(logits, self._random_source)
            self._target.synchronize()
            seconds = self._clock() - started
        self._target.rollback(self._held)
        return seconds

    def round(self, configuration: Configuration, draft: Runner) -> tuple[float, float, int]:
        """Time one round.

        A draft that needs no step of a model has all of its time in the second number.

        Returns:
            Seconds per draft step, seconds of the target's part of the round, and drafted tokens.
        """
        # 1. Draft a block, as long as the method makes it.
        draft.synchronize()
        started = self._clock()
        context = DraftContext(
            text=self._text,
            head=self._last,
            model=draft,
            vocab_size=self._target.vocab_size,
            policy=self._policy,
            random_source=self._random_source,
            stop=configuration.stop,
        )
        proposal = configuration.draft.propose(context, configuration.gamma)
        draft.synchronize()
        drafting = self._clock() - started
        # 2. Keep the count of timed steps. Then fill up a short block, untimed.
        steps = proposal.steps
        proposal = self._full_length(configuration, context, proposal)
        # 3. Verify the block and commit the result.
        draft.synchronize()
        drafted = self._clock()
        p = self._policy.distribution(proposal.score(self._target, self._last))
        result = proposal.verify(configuration.verify, p, self._random_source)
        proposal.commit(self._target, draft, self._held + 1, result)
        self._target.synchronize()
        verifying = self._clock() - drafted
        # 4. Take the round back: the next one starts from the same text.
        self._target.rollback(self._held)
        draft.rollback(self._held)
        if steps == 0:
            return 0.0, drafting + verifying, proposal.drafted
        return drafting / steps, verifying, proposal.drafted

    def _full_length(
        self, configuration: Configuration, context: DraftContext, proposal: Proposal
    ) -> Proposal:
        """The proposal, or one as long as gamma allows in its place.

        A stop rule or a lookup may leave a block short. Its length after this one text holds for no
        other.
        """
        if proposal.drafted == configuration.draft.slots(configuration.gamma):
            return proposal
        if proposal.steps:
            context.runner.rollback(self._held)
            return configuration.draft.propose(
                replace(context, stop=FixedLength()), configuration.gamma
            )
        # A lookup: any tokens will do, since only their time counts.
        return Chain.certain(context, [self._text[-1]] * configuration.gamma)
