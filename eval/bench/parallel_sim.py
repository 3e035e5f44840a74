"""Draft and target at the same time: measured on this machine, predicted for two devices.

    python eval/bench/parallel_sim.py                       # the nano pair, T = 0 and 1
    python eval/bench/parallel_sim.py --prompts 24 --nodes 16 --longest 8
    python eval/bench/parallel_sim.py --gammas 3 --pearl-gamma 3

First CARD and PEARL, a core for each side, against decoding in one process: autoregressive and
speculative, with one core (each model has its own, the other one idles) and with both cores for
every forward. All take turns prompt by prompt. `busy` is the share of the time each side works.

Then CARD in virtual time. What forwards cost is measured on other prompts while the other process
is busy, since the two share the memory bus; the prediction is made before the run. If both agree
within 15 %, what two devices of their own would make of the same pair is printed for c from 0.02 to
0.5 (v as measured with both cores and nothing else running). The sequential column is the
expectation at its best gamma up to 8. A step of CARD, over N nodes, is charged one c, as a step
over one token is: that holds where a step costs the reading of the weights. PEARL's column, gamma
1/c up to 8, was checked against no run.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pair
import torch
from parallel_ways import Bench, Spent, TimedRunner, interpolated, random_source
from torch import Tensor
from virtual_time import (
    Cost,
    TextTarget,
    TimedTarget,
    VirtualBlocks,
    VirtualClock,
    VirtualDraft,
)

from distillspec.errors import DistillSpecError
from distillspec.measure.exact.expected_rounds import expected_counts
from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Interval, Sums
from distillspec.measure.timed.parallel import torch_threads
from distillspec.methods.build import configuration
from distillspec.models.loading.precision import describe
from distillspec.models.runners.eager import CausalRunner
from distillspec.recipe.methods import MethodConfig
from distillspec.speculation.decoding.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.parallel.ahead import AheadDraft
from distillspec.speculation.parallel.candidates import Candidates
from distillspec.speculation.parallel.card import CardDecoder
from distillspec.speculation.parallel.pearl import BlockWorker, PearlDecoder
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

_COSTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
_AGREES = 0.15
_LONGEST_GAMMA = 8
_MILLI = 1e3


def card_in_virtual_time(
    bench: Bench, draft: Runner, prompt: Tensor, text: Tensor, policy: SamplingPolicy, costs: Costs
) -> float:
    """Time of decoding `text` after `prompt`, in the unit of the costs."""
    clock, arguments = VirtualClock(), bench.arguments
    decoder = CardDecoder(
        TextTarget(torch.cat([prompt, text]), bench.pair.vocab_size, clock, costs.target),
        VirtualDraft(
            AheadDraft(draft, Candidates(arguments.nodes, arguments.layers)),
            policy,
            clock,
            costs.draft,
        ),
        SamplingPolicy(0.0),
        random_source(0),
        longest=arguments.longest,
    )
    return after_the_prompt(decoder.rounds(prompt, max_new_tokens=len(text)), clock, prompt, costs)


def pearl_in_virtual_time(
    bench: Bench, runners: tuple[Runner, Runner], prompt: Tensor, policy: SamplingPolicy,
    costs: Costs, seed: int,
) -> float:  # fmt: skip
    clock = VirtualClock()
    gamma = min(_LONGEST_GAMMA, max(1, round(1.0 / costs.draft(1))))
    q = torch.zeros(gamma, bench.pair.vocab_size)
    worker = BlockWorker(lambda: runners[1], q)
    decoder = PearlDecoder(
        TimedTarget(runners[0], clock, costs.target),
        VirtualBlocks(worker, q, clock, costs.draft),
        policy,
        random_source(seed),
        gamma=gamma,
        seed=seed,
    )
    tokens = bench.arguments.new_tokens
    return after_the_prompt(decoder.rounds(prompt, max_new_tokens=tokens), clock, prompt, costs)


class Costs(NamedTuple):
    target: Cost
    draft: Cost


def after_the_prompt(
    rounds: Iterable[object], clock: VirtualClock, prompt: Tensor, costs: Costs
) -> float:
    """What the rounds take; the forward that reads the prompt is not counted."""
    for _ in rounds:
        pass
    return clock.now - (costs.target(len(prompt) - 1) if len(prompt) > 1 else 0.0)


def sequential(
    keep_probabilities: Sequence[Sequence[float]], c: float, v: Cost
) -> tuple[int, Interval]:
    """The best gamma and its expected speed-up."""
    best: tuple[int, Interval] | None = None
    for gamma in range(1, _LONGEST_GAMMA + 1):
        counts = [expected_counts(entry, gamma) for entry in keep_probabilities]
        seconds = [entry.verifications * (gamma * c + v(gamma + 1)) for entry in counts]
        estimate = intervals.ratio(
            Sums([entry.emitted for entry in counts], seconds), pair.CONFIDENCE
        )
        if best is None or estimate.value > best[1].value:
            best = gamma, estimate
    assert best is not None
    return best


def chances_of(
    runners: tuple[Runner, Runner], prompt: Tensor, text: Tensor, policy: SamplingPolicy
) -> list[float]:
    """That each token of the target's text was a kept draft token.

    In half precision a greedy text may be none of this reading's (p = 0): q is then 0 or 1.
    """
    rows = []
    for runner in runners:
        runner.reset()
        logits = runner.feed(torch.cat([prompt, text[:-1]])[None])[0, len(prompt) - 1 :]
        rows.append(policy.distribution(logits).gather(1, text[:, None])[:, 0])
    p, q = rows
    return torch.where(p > 0.0, (q / p).clamp(max=1.0), q).tolist()


# --- the tables ----------------------------------------------------------------------------------


def measured(bench: Bench, prompts: Sequence[Tensor], policy: SamplingPolicy) -> dict[str, Spent]:
    new_tokens = bench.arguments.new_tokens
    spent: dict[str, Spent] = defaultdict(Spent)
    for threads, decode in bench.ways(policy, 0).values():
        with torch_threads(threads):
            decode(prompts[0], max_new_tokens=new_tokens)
    for number, prompt in enumerate(prompts):
        ways = list(bench.ways(policy, number).items())
        turn = number % len(ways)
        for name, (threads, decode) in ways[turn:] + ways[:turn]:
            with torch_threads(threads):
                spent[name].add(decode(prompt, max_new_tokens=new_tokens))
    return {name: spent[name] for name in bench.ways(policy, 0)}


def print_measured(spent: dict[str, Spent]) -> None:
    plain = next(iter(spent.values()))
    print(
        f"{'':30}{'tokens/s':>9}{'tau':>6}{'speed-up':>10}{'95 %':>16}{'busy: target, draft':>22}"
    )
    for name, timing in spent.items():
        speedup = timing.speedup(plain)
        busy = "{:.0%}, {:.0%}".format(*timing.busy_shares()) if timing.busy else ""
        print(
            f"{name:30}{timing.speed().ratio():9.0f}{sum(timing.tokens) / timing.rounds:6.2f}"
            f"{speedup.value:9.2f}x{f'{speedup.low:.2f} - {speedup.high:.2f}':>16}{busy:>22}"
        )


def print_predictions(bench: Bench, prompts: Sequence[Tensor], policy: SamplingPolicy) -> None:
    arguments = bench.arguments
    eager = (
        CausalRunner(bench.pair.target, vocab_size=bench.pair.vocab_size),
        CausalRunner(bench.pair.draft, vocab_size=bench.pair.vocab_size),
    )
    texts = []
    quiet = TimedRunner(bench.targets[bench.all_threads])
    for number, prompt in enumerate(prompts):
        plain = AutoregressiveDecoder(quiet, policy, random_source(number))
        generation = plain.decode(prompt, max_new_tokens=arguments.new_tokens)
        texts.append(torch.tensor(generation.tokens))
        speculative = SpeculativeDecoder(
            quiet,
            bench.drafts[bench.all_threads],
            configuration(MethodConfig(), arguments.longest),
            policy,
            random_source(number),
        )
        speculative.decode(prompt, max_new_tokens=arguments.new_tokens)
    away = prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]
    target_cost, draft_cost = bench.costs(away[0], policy)
    busy = Costs(target_cost, lambda size: draft_cost)
    predicted = [
        card_in_virtual_time(bench, eager[1], prompt, text, policy, busy)
        for prompt, text in zip(away[1], texts[len(away[0]) :], strict=True)
    ]
    tokens = arguments.new_tokens * len(away[1])
    print(
        f"\nboth busy: a target forward {target_cost(1) * _MILLI:.2f} ms, over "
        f"{arguments.longest + 1} tokens {target_cost(arguments.longest + 1) * _MILLI:.2f}; "
        f"a draft step {draft_cost * _MILLI:.2f} ms, c = {draft_cost / target_cost(1):.2f}"
    )
    print(f"card, predicted: {tokens / sum(predicted):.0f} tokens/s", flush=True)
    spent = Spent()
    with torch_threads(bench.threads_each):
        for number, prompt in enumerate(away[1]):
            target = bench.targets[bench.threads_each]
            decoder = bench.card(target, policy, len(away[0]) + number)
            spent.add(decoder.decode(prompt, max_new_tokens=arguments.new_tokens))
    ratio = spent.speed().ratio() / (tokens / sum(predicted))
    print(f"card, measured:  {spent.speed().ratio():.0f} tokens/s, {ratio:.0%} of it")
    if abs(ratio - 1.0) > _AGREES:
        print("they differ by more than 15 %: no prediction for two devices is printed")
        return
    unit = interpolated(quiet.seconds, 0.0)
    v: Cost = lambda size: unit(size) / unit(1)  # noqa: E731
    keep_probabilities = [
        chances_of(eager, prompt, text, policy) for prompt, text in zip(prompts, texts, strict=True)
    ]
    print(f"\ntwo devices, v({arguments.longest + 1} tokens) = {v(arguments.longest + 1):.2f}; ")
    print(f"{'c':>6}{'sequential':>26}{'card':>24}{'pearl':>24}")
    for c in _COSTS:
        costs = Costs(v, lambda size, c=c: c)  # type: ignore[misc]
        gamma, best = sequential(keep_probabilities, c, v)
        lengths = [float(len(text)) for text in texts]
        card = [
            card_in_virtual_time(bench, eager[1], prompt, text, policy, costs)
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        pearl = [
            pearl_in_virtual_time(bench, eager, prompt, policy, costs, number)
            for number, prompt in enumerate(prompts)
        ]
        print(
            f"{c:6.2f}{f'{_range(best)} @{gamma}':>26}"
            f"{_range(intervals.ratio(Sums(lengths, card), pair.CONFIDENCE)):>24}"
            f"{_range(intervals.ratio(Sums(lengths, pearl), pair.CONFIDENCE)):>24}",
            flush=True,
        )


def _range(estimate: Interval) -> str:
    return f"{estimate.value:.2f}x [{estimate.low:.2f}, {estimate.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair.add_arguments(parser, prompts=16)
    parser.add_argument("--gammas", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--nodes", type=int, default=8, help="N of CARD")
    parser.add_argument("--layers", type=int, default=10, help="CARD's draft is ahead at most")
    parser.add_argument("--longest", type=int, default=6, help="longest path of CARD")
    parser.add_argument("--pearl-gamma", type=int, default=4)
    parser.add_argument("--runner", choices=["eager", "compiled"], default="compiled")
    arguments = parser.parse_args()
    bench = Bench(pair.load(arguments), arguments)
    prompts = bench.pair.prompts
    try:
        print(f"{describe('cpu')}; run in {bench.pair.dtype}, {bench.all_threads} threads")
        print(f"{len(prompts)} prompts, {arguments.new_tokens} new tokens each")
        print(f"card's shared candidates: {bench.processes.card.bytes:,} bytes")
        for temperature in arguments.temperatures:
            policy = SamplingPolicy(temperature)
            print(f"\ntemperature {temperature:g}")
            print_measured(measured(bench, prompts, policy))
            print_predictions(bench, prompts, policy)
    finally:
        bench.processes.close()


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
