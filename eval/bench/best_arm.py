"""Measured over predicted speed-up by gamma, and adaptive methods as a share of the best gamma.

    python eval/bench/best_arm.py                        # the nano pair, T = 0 and 1
    python eval/bench/best_arm.py --target FOLDER --draft FOLDER --recipe RECIPE --prompts 48

All contenders decode each prompt in one process, in an order that rotates. `predicted` is from
steps timed next to the same prompt, with the rounds that were counted. `virtual` prices the counted
rounds of every contender by one set of step times, so that no clock's noise is in it. Intervals are
over source documents. The best gamma is picked on the same prompts, which flatters it a little.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pair
import torch

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval, Sums, ratio
from distillspec.methods.build import configuration, drafts_by_entropy, graph_sizes, max_slots
from distillspec.methods.choosers import chooser
from distillspec.methods.measure_steps import measure_steps
from distillspec.methods.step_times import StepTimes
from distillspec.models.loading.precision import describe
from distillspec.recipe.suite import Suite
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.choose.chooser import Chooser
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.decoding.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Generation
from distillspec.speculation.round_times import RoundTimes
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

DRAFT = "distilled"
PLAIN = "autoregressive"
FIXED = "standard"
_FEWEST = 3  # prompts
_NEAR = 4  # rounds of each kind that are timed next to a prompt


class Decoded(NamedTuple):
    """A text of one contender."""

    seconds: float
    generation: Generation


def suite_of(gammas: Sequence[int], arms: Sequence[str]) -> Suite:
    most = [max(gammas)]
    methods: list[dict[str, Any]] = [
        {"name": FIXED, "gammas": list(gammas)},
        {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": most},
        {"name": "adaedl-0.5", "stop": {"kind": "adaedl", "wanted_rate": 0.5}, "gammas": most},
        *(
            {"name": f"{name}{end}", "choose": {"kind": kind, "arms": list(arms), **more}}
            for name, kind in (("ucbspec", "ucb"), ("exp3spec", "exp3"))
            for end, more in (("", {}), ("-no-prior", {"prior": 0}))
        ),
    ]
    return Suite.model_validate({"methods": methods, "drafts": [DRAFT]})


class Contest:
    """One pair at one temperature: its runners, its contenders and their texts."""

    def __init__(
        self,
        bench: pair.BenchPair,
        runners: tuple[Runner, Runner],
        suite: Suite,
        temperature: float,
        arguments: argparse.Namespace,
    ) -> None:
        self._bench, self._suite, self._arguments = bench, suite, arguments
        self._target, self._draft = runners
        self._policy = SamplingPolicy(temperature)
        middle = sorted(bench.prompts, key=len)[len(bench.prompts) // 2]
        self.steps = {
            method.name: self._timed(method.name, middle, 30)
            for method in suite.methods
            if method.choose is None
        }
        self._ways = self._contenders()
        self.texts: dict[str, list[Decoded]] = {name: [] for name in (PLAIN, *self._ways)}
        self.near: list[StepTimes] = []

    def _timed(self, name: str, prompt: torch.Tensor, rounds: int) -> StepTimes:
        method = self._suite.named(name)
        return measure_steps(
            self._target,
            {DRAFT: self._draft},
            [configuration(method, gamma) for gamma in self._suite.of(method)],
            prompt,
            policy=self._policy,
            random_source=self._random_source("steps", name),
            rounds=rounds,
        )

    def _contenders(self) -> dict[str, Chooser]:
        ways: dict[str, Chooser] = {}
        for method in self._suite.methods:
            if method.choose is not None:
                random_source = self._random_source("arms", method.name)
                ways[method.name] = chooser(self._suite, method, random_source, self.steps, DRAFT)
                continue
            for gamma in self._suite.of(method):
                arm = configuration(method, gamma, DRAFT, self.steps[method.name])
                ways[f"{method.name}@{gamma}"] = Fixed(arm)
        return ways

    def run(self, until: float) -> None:
        """Decode prompt after prompt, until that time of `time.monotonic`."""
        order = list(self.texts)
        for name in order:  # every shape once
            self._decode(name, self._bench.prompts[0], 16, "warm-up")
        self._ways = self._contenders()  # which know nothing of it
        for number, prompt in enumerate(self._bench.prompts):
            if number >= _FEWEST and time.monotonic() > until:
                break
            self.near.append(self._timed(FIXED, prompt, _NEAR))
            turn = number % len(order)
            for name in order[turn:] + order[:turn]:
                decoded = self._decode(name, prompt, self._arguments.new_tokens, str(number))
                self.texts[name].append(decoded)

    def _decode(self, name: str, prompt: torch.Tensor, length: int, key: str) -> Decoded:
        random_source = self._random_source("tokens", name, key)
        if name == PLAIN:
            decoder: AutoregressiveDecoder | SpeculativeDecoder = AutoregressiveDecoder(
                self._target, self._policy, random_source
            )
        else:
            draft: dict[str, Runner] = {DRAFT: self._draft}
            decoder = SpeculativeDecoder(
                self._target, draft, self._ways[name], self._policy, random_source
            )
        generation = decoder.decode(prompt, max_new_tokens=length)
        return Decoded(generation.decode_seconds, generation)

    def _random_source(self, *purpose: str) -> GeneratorSource:
        return GeneratorSource(
            torch.Generator().manual_seed(
                derive_seed(self._arguments.seed, *purpose, self._policy.temperature)
            )
        )


def priced(generation: Generation, times: RoundTimes) -> float:
    """The rounds of a text in one-token target steps."""
    total, was_whole = 0.0, False
    for record in generation.rounds:
        total += times.between(record.draft_steps, record.drafted, float(was_whole))
        was_whole = record.accepted == record.drafted == record.draft_steps
    return total


def over_predicted(contest: Contest, gamma: int) -> Interval:
    """Measured over predicted speed-up, by prompt, from the steps timed next to it."""
    ratios = []
    both = zip(contest.texts[PLAIN], contest.texts[f"{FIXED}@{gamma}"], contest.near, strict=True)
    for plain, decoded, steps in both:
        tokens = len(decoded.generation.tokens)
        predicted = tokens / priced(decoded.generation, steps.round_times(DRAFT))
        ratios.append(plain.seconds / decoded.seconds / predicted)
    return ratio(Sums(ratios, [1.0] * len(ratios)), pair.CONFIDENCE)


def shown(interval: Interval) -> str:
    return f"{interval.value:6.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def print_tables(contest: Contest, gammas: Sequence[int]) -> None:
    steps, texts = contest.steps[FIXED], contest.texts
    times = steps.round_times(DRAFT)
    print(
        f"target step {steps.target_seconds * 1e3:.2f} ms; spread {steps.spread:.0%}; unread "
        f"{times.unread:.3f}\n"
        + "; ".join(
            f"gamma {gamma}: c {steps.draft_to_target_time(DRAFT, gamma):.3f} "
            f"v {steps.verify_time(gamma):.3f}"
            for gamma in gammas
        )
    )
    cost = {
        name: [priced(decoded.generation, times) for decoded in decodeds]
        for name, decodeds in texts.items()
        if name != PLAIN
    }
    seconds = {name: [decoded.seconds for decoded in texts[name]] for name in texts}
    fixed = [f"{FIXED}@{gamma}" for gamma in gammas]
    best = min(fixed, key=lambda name: sum(seconds[name]))
    best_virtual = min(fixed, key=lambda name: sum(cost[name]))
    print(
        f"{'':18}{'tau':>6}{'speed-up':>24}{'measured / predicted':>24}"
        f"{'share of ' + best:>26}{'virtual, of ' + best_virtual:>28}"
    )
    for name in cost:
        rounds = sum(len(decoded.generation.rounds) for decoded in texts[name])
        tokens = sum(len(decoded.generation.tokens) for decoded in texts[name])
        speedup = ratio(Sums(seconds[PLAIN], seconds[name]), pair.CONFIDENCE)
        predicted = ""
        if name in fixed:
            predicted = shown(over_predicted(contest, gammas[fixed.index(name)]))
        share = ratio(Sums(seconds[best], seconds[name]), pair.CONFIDENCE)
        virtual = ratio(Sums(cost[best_virtual], cost[name]), pair.CONFIDENCE)
        print(
            f"{name:18}{tokens / rounds:6.2f}{shown(speedup):>24}{predicted:>24}"
            f"{shown(share):>26}{shown(virtual):>28}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair.add_arguments(parser, prompts=24)
    parser.add_argument("--gammas", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--arms", nargs="+", default=[FIXED], help="of the choosers")
    parser.add_argument("--runner", choices=["eager", "compiled"], default="compiled")
    parser.add_argument("--fixed-only", action="store_true", help="no adaptive methods")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for all temperatures")
    arguments = parser.parse_args()
    started, seconds = time.monotonic(), 60.0 * arguments.minutes
    bench = pair.load(arguments)
    gammas = sorted(set(arguments.gammas))
    suite = suite_of(gammas, arguments.arms)
    if arguments.fixed_only:
        suite = suite.model_copy(update={"methods": suite.methods[:1]})
    print(f"{describe('cpu')}; run in {bench.dtype}, {torch.get_num_threads()} threads")
    print(f"each prompt of another document; {arguments.new_tokens} new tokens")
    blocks, _, _ = graph_sizes(suite)
    room = arguments.new_tokens + max_slots(suite) + 1
    runners = bench.runners(
        arguments.runner, tuple(blocks), room, computes_entropy=drafts_by_entropy(suite)
    )
    for number, temperature in enumerate(arguments.temperatures, 1):
        contest = Contest(bench, runners, suite, temperature, arguments)
        left = len(arguments.temperatures) - number + 1
        now = time.monotonic()
        contest.run(now + (started + seconds - now) / left)
        print(f"\ntemperature {temperature:g}; {len(contest.near)} prompts")
        print_tables(contest, gammas)
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
