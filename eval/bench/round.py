"""Where the time of a decoding round goes, beside the isolated steps that predict it.

    python eval/bench/round.py                           # the nano pair, gamma 2 and 4, T = 0 and 1
    python eval/bench/round.py --gammas 3 --temperatures 1 --prompts 16
    python eval/bench/round.py --target FOLDER --draft FOLDER --prompts-file prompts.jsonl

Rounds of real decoding, with clocks around the forwards of both models. What is neither is the
rest: drawing tokens, verifying them, moving them about. Autoregressive decoding and every gamma
take turns prompt by prompt. `isolated` is what a round should take by the steps timed alone, from
which the predicted speed-up is made. Times are means in microseconds, reading the prompt left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pair
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.methods.build import block_sizes, configuration
from distillspec.methods.measure_steps import measure_steps
from distillspec.methods.step_times import StepTimes
from distillspec.models.loading.precision import describe
from distillspec.recipe.methods import MethodConfig
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.decoding.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Generation
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

_MICRO = 1e6


class ClockedRunner:
    """A runner that adds up the seconds of its forwards, the reading of the prompt left out."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._reads_prompt = True
        self.seconds = 0.0

    @property
    def vocab_size(self) -> int:
        return self._runner.vocab_size

    @property
    def length(self) -> int:
        return self._runner.length

    @property
    def capacity(self) -> int:
        return self._runner.capacity

    @property
    def positions(self) -> int:
        return self._runner.positions

    def reset(self) -> None:
        self._runner.reset()
        self._reads_prompt = True

    def feed(self, tokens: Tensor) -> Tensor:
        started = time.perf_counter()
        logits = self._runner.feed(tokens)
        self._runner.synchronize()
        if not self._reads_prompt:
            self.seconds += time.perf_counter() - started
        self._reads_prompt = False
        return logits

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        started = time.perf_counter()
        logits = self._runner.feed_tree(tokens, parents)
        self._runner.synchronize()
        self.seconds += time.perf_counter() - started
        return logits

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        self._runner.keep(length, slots, tree)

    def rollback(self, length: int) -> None:
        self._runner.rollback(length)

    def synchronize(self) -> None:
        self._runner.synchronize()


@dataclass
class Spent:
    """Sums over the rounds of one way to decode."""

    seconds: float = 0.0
    target: float = 0.0
    draft: float = 0.0
    rounds: int = 0
    tokens: int = 0
    draft_steps: int = 0
    kept_whole: int = 0

    def add(self, generation: Generation, target: ClockedRunner, draft: ClockedRunner) -> None:
        self.seconds += generation.decode_seconds
        self.target += target.seconds
        self.draft += draft.seconds
        self.rounds += len(generation.rounds)
        self.tokens += len(generation.tokens)
        self.draft_steps += sum(record.draft_steps for record in generation.rounds)
        self.kept_whole += sum(
            record.accepted == record.drafted > 0 for record in generation.rounds
        )
        target.seconds = draft.seconds = 0.0

    def a_round(self, seconds: float) -> float:
        return seconds / self.rounds * _MICRO


def measure(
    bench: pair.BenchPair,
    runners: tuple[Runner, Runner],
    policy: SamplingPolicy,
    gammas: list[int],
    arguments: argparse.Namespace,
) -> tuple[dict[int, Spent], StepTimes]:
    """By gamma (0: autoregressive) where the time went; and the isolated steps."""
    random_source = GeneratorSource(
        torch.Generator().manual_seed(derive_seed(arguments.seed, "rounds"))
    )
    configurations = {gamma: configuration(MethodConfig(), gamma) for gamma in gammas}
    target, draft = ClockedRunner(runners[0]), ClockedRunner(runners[1])
    decoders: dict[int, Callable[..., Generation]] = {
        0: AutoregressiveDecoder(target, policy, random_source).decode
    }
    for gamma, settings in configurations.items():
        decoders[gamma] = SpeculativeDecoder(target, draft, settings, policy, random_source).decode
    middle = sorted(bench.prompts, key=len)[len(bench.prompts) // 2]
    steps = measure_steps(
        target, {"draft": draft}, list(configurations.values()), middle,
        policy=policy, random_source=random_source,
    )  # fmt: skip
    for decode in decoders.values():
        decode(bench.prompts[0], max_new_tokens=arguments.new_tokens)
    target.seconds = draft.seconds = 0.0
    spent = {gamma: Spent() for gamma in decoders}
    order = list(decoders)
    for number, prompt in enumerate(bench.prompts):
        turn = number % len(order)
        for gamma in order[turn:] + order[:turn]:
            generation = decoders[gamma](prompt, max_new_tokens=arguments.new_tokens)
            spent[gamma].add(generation, target, draft)
    return spent, steps


def print_table(temperature: float, spent: dict[int, Spent], steps: StepTimes) -> None:
    print(f"\ntemperature {temperature:g}; microseconds a round")
    print(
        f"{'':16}{'round':>8}{'target':>8}{'draft':>8}{'steps':>7}{'rest':>7}{'isolated':>10}"
        f"{'tau':>7}{'speed-up':>10}{'predicted':>11}{'ratio':>7}"
    )
    plain = spent[0]
    for gamma, timing in spent.items():
        rest = timing.seconds - timing.target - timing.draft
        if gamma:
            times = steps.round_times("draft")
            alone = times.at(gamma, timing.kept_whole / timing.rounds) * steps.target_seconds
        else:
            alone = steps.target_seconds
        tau = timing.tokens / timing.rounds
        predicted = tau * steps.target_seconds / alone
        speedup = timing.tokens / timing.seconds / (plain.tokens / plain.seconds)
        print(
            f"{f'gamma {gamma}' if gamma else 'autoregressive':16}"
            f"{timing.a_round(timing.seconds):8.0f}{timing.a_round(timing.target):8.0f}"
            f"{timing.a_round(timing.draft):8.0f}{timing.draft_steps / timing.rounds:7.2f}"
            f"{timing.a_round(rest):7.0f}{alone * _MICRO:10.0f}{tau:7.2f}{speedup:9.2f}x"
            f"{predicted:10.2f}x{speedup / predicted:7.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair.add_arguments(parser, prompts=12)
    parser.add_argument("--gammas", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--runner", choices=["eager", "compiled"], default="compiled")
    arguments = parser.parse_args()
    bench = pair.load(arguments)
    gammas = sorted(set(arguments.gammas))
    runners = bench.runners(
        arguments.runner, tuple(block_sizes(gammas)), arguments.new_tokens + gammas[-1] + 1
    )
    print(f"{describe('cpu')}; run in {bench.dtype}, {torch.get_num_threads()} threads")
    print(f"{len(bench.prompts)} prompts, {arguments.new_tokens} new tokens each")
    for temperature in arguments.temperatures:
        spent, steps = measure(bench, runners, SamplingPolicy(temperature), gammas, arguments)
        print_table(temperature, spent, steps)


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
