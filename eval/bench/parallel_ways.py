"""Ways to decode a pair in one process and in two, and the cost of their forwards."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import pair
import torch
from torch import Tensor
from virtual_time import Cost

from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Interval, Sums
from distillspec.measure.timed.parallel import torch_threads
from distillspec.methods.build import block_sizes, configuration
from distillspec.models.runners.compiled import make_runner
from distillspec.models.runners.factory import saved
from distillspec.recipe.methods import MethodConfig
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.decoding.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.parallel.card import CardDecoder, CardProcess
from distillspec.speculation.parallel.pearl import PearlDecoder, PearlProcess
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Busy, Generation
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

Decode = Callable[..., Generation]


class TimedRunner:
    """A runner that notes how long its forwards take, by their number of tokens."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.vocab_size = runner.vocab_size
        self.capacity, self.positions = runner.capacity, runner.positions
        self.seconds: defaultdict[int, list[float]] = defaultdict(list)

    @property
    def length(self) -> int:
        return self._runner.length

    def reset(self) -> None:
        self._runner.reset()

    def feed(self, tokens: Tensor) -> Tensor:
        started = time.perf_counter()
        logits = self._runner.feed(tokens)
        self._runner.synchronize()
        self.seconds[tokens.shape[1]].append(time.perf_counter() - started)
        return logits

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        return self._runner.feed_tree(tokens, parents)

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        self._runner.keep(length, slots, tree)

    def rollback(self, length: int) -> None:
        self._runner.rollback(length)

    def synchronize(self) -> None:
        self._runner.synchronize()


@dataclass
class Spent:
    """What one way to decode took, by prompt."""

    tokens: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rounds: int = 0
    busy: list[Busy] = field(default_factory=list)

    def add(self, generation: Generation) -> None:
        self.tokens.append(len(generation.tokens))
        self.seconds.append(generation.decode_seconds)
        self.rounds += len(generation.rounds)
        if generation.busy is not None:
            self.busy.append(generation.busy)

    def speed(self) -> Sums:
        return Sums(self.tokens, self.seconds)

    def speedup(self, plain: Spent) -> Interval:
        return intervals.ratio(Sums(plain.seconds, self.seconds), pair.CONFIDENCE)

    def busy_shares(self) -> tuple[float, float]:
        seconds = sum(self.seconds)
        return (
            sum(share.target_seconds for share in self.busy) / seconds,
            sum(share.draft_seconds for share in self.busy) / seconds,
        )


class Processes(NamedTuple):
    card: CardProcess
    pearl: PearlProcess

    def close(self) -> None:
        self.card.close()
        self.pearl.close()


class Bench:
    """Runners with one thread and with all of them, and two drafts in processes of their own."""

    def __init__(self, bench: pair.BenchPair, arguments: argparse.Namespace) -> None:
        self.pair, self.arguments = bench, arguments
        self.all_threads = torch.get_num_threads()
        self.threads_each = max(1, self.all_threads // 2)
        slots = max(arguments.nodes * arguments.layers, 2 * arguments.pearl_gamma)
        self.capacity = max(map(len, bench.prompts)) + arguments.new_tokens + slots + 1
        sizes = block_sizes([*arguments.gammas, arguments.longest, arguments.pearl_gamma])
        self.targets, self.drafts = {}, {}
        for threads in (self.threads_each, self.all_threads):
            with torch_threads(threads):
                self.targets[threads] = self._runner(bench.target, sizes)
                self.drafts[threads] = self._runner(bench.draft, (1, 2))
        self.processes = Processes(self._card(), self._pearl())

    def _runner(self, model: object, sizes: Sequence[int]) -> Runner:
        return make_runner(
            model,  # type: ignore[arg-type]
            self.arguments.runner,
            self.capacity,
            sizes,
            vocab_size=self.pair.vocab_size,
        )

    def _card(self) -> CardProcess:
        nodes, layers = self.arguments.nodes, self.arguments.layers
        with saved(
            self.pair.draft,
            self.arguments.runner,
            self.capacity,
            (1, 2),
            tree_sizes=(nodes,),
            vocab_size=self.pair.vocab_size,
        ) as make:
            return CardProcess(make, width=nodes, depth=layers, threads=self.threads_each)

    def _pearl(self) -> PearlProcess:
        with saved(
            self.pair.draft,
            self.arguments.runner,
            self.capacity,
            (1, 2),
            vocab_size=self.pair.vocab_size,
        ) as make:
            return PearlProcess(
                make,
                gamma=self.arguments.pearl_gamma,
                vocab_size=self.pair.vocab_size,
                threads=self.threads_each,
            )

    def card(self, target: Runner, policy: SamplingPolicy, seed: int) -> CardDecoder:
        return CardDecoder(
            target, self.processes.card, policy, random_source(seed), longest=self.arguments.longest
        )

    def ways(self, policy: SamplingPolicy, seed: int) -> dict[str, tuple[int, Decode]]:
        """By name: threads, and what decodes."""
        found: dict[str, tuple[int, Decode]] = {}
        for threads in (self.all_threads, self.threads_each):
            cores = "both cores" if threads == self.all_threads else "one core"
            target = self.targets[threads]
            plain = AutoregressiveDecoder(target, policy, random_source(seed))
            found[f"autoregressive, {cores}"] = threads, plain.decode
            for gamma in self.arguments.gammas:
                decoder = SpeculativeDecoder(
                    target,
                    self.drafts[threads],
                    configuration(MethodConfig(), gamma),
                    policy,
                    random_source(seed),
                )
                found[f"sequential @{gamma}, {cores}"] = threads, decoder.decode
        target, gamma = self.targets[self.threads_each], self.arguments.pearl_gamma
        found[f"card, {self.arguments.nodes} nodes"] = (
            self.threads_each,
            self.card(target, policy, seed).decode,
        )
        pearl = PearlDecoder(
            target, self.processes.pearl, policy, random_source(seed), gamma=gamma, seed=seed
        )
        found[f"pearl @{gamma}"] = self.threads_each, pearl.decode
        return found

    def costs(self, prompts: Sequence[Tensor], policy: SamplingPolicy) -> tuple[Cost, float]:
        """Seconds of the target's part of a round by block size, and of a draft's step, both busy.

        What a round takes beside its forward is added to it.
        """
        target = TimedRunner(self.targets[self.threads_each])
        rounds = steps = 0
        seconds = busy = 0.0
        with torch_threads(self.threads_each):
            for number, prompt in enumerate(prompts):
                generation = self.card(target, policy, number).decode(
                    prompt, max_new_tokens=self.arguments.new_tokens
                )
                rounds += len(generation.rounds)
                steps += sum(record.draft_steps for record in generation.rounds)
                seconds += generation.decode_seconds
                assert generation.busy is not None
                busy += generation.busy.draft_seconds
                if len(prompt) > 1:
                    target.seconds[len(prompt) - 1].pop()  # the prompt is no round
        forwards = sum(map(sum, target.seconds.values()))
        return interpolated(target.seconds, (seconds - forwards) / rounds), busy / steps


def random_source(seed: int) -> GeneratorSource:
    return GeneratorSource(torch.Generator().manual_seed(derive_seed(seed, "tokens")))


def interpolated(seconds: dict[int, list[float]], more: float) -> Cost:
    """Medians by size, straight lines between those that were seen often enough."""
    sizes = sorted(size for size, times in seconds.items() if len(times) >= 5)
    known = {size: median(seconds[size]) + more for size in sizes}

    def cost(size: int) -> float:
        above = next((known_size for known_size in sizes if known_size >= size), sizes[-1])
        below = next((known_size for known_size in reversed(sizes) if known_size <= size), sizes[0])
        if above == below:
            return known[above]
        share = (size - below) / (above - below)
        return known[below] + share * (known[above] - known[below])

    return cost
