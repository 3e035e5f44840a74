"""Stop rules: what each costs a draft step, and where AdaEDL's threshold should start.

    python eval/bench/stop.py                               # both parts, the nano pair, T = 0 and 1
    python eval/bench/stop.py cost --runner eager --prompts 6
    python eval/bench/stop.py starts --c 0.17 --v 1.5 --temperatures 1 --starts 0.2 0.4 0.6

`cost`: the draft makes chains of gamma tokens after each prompt, with every rule set so that it
looks at each step and never stops, and with none. The rules take turns in an order that rotates,
draw the same tokens after a forward of the target each, and are compared with the chain without a
rule of the same turn: the median of these ratios a prompt, their mean over prompts. `host` is what
the rule alone takes on logits that lie ready, of which nobody has told it the entropy; what it
costs beyond that is cold caches, less what the draw after it is spared.

`starts`: no clock, no coins. The target writes a text after each prompt. A drafted token that is
kept is a token of that text with probability min(1, q/p), so how often rounds begin at each place
of it, and what they keep, is a sum, for any fixed length and for AdaEDL at any threshold alike.
What a round drafts in vain is not of the text: at every few places the draft makes one chain, and
how much earlier or later than on the text it ends there corrects the steps. What that predicts is
a speed-up of tokens / (draft steps x c + rounds x v), c and v in one-token target steps, as
`evaluate` measures them. A threshold moves by 0.001 a round at most, so it is held at its start.
All rows judge the same texts and chains and are compared by prompt with the best fixed length of
the table; having been picked as the best, that one is a little flattered.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import pair
import torch

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Sums, ratio, relative
from distillspec.methods.build import configuration
from distillspec.models.loading.precision import describe
from distillspec.recipe.methods import MethodConfig
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.confidence import Confidence, DraftVerify
from distillspec.speculation.draft.entropy import SVIP, AdaEDL, guessed_acceptance
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

NONE = "none"
NEVER: dict[str, Callable[[], StopRule]] = {
    NONE: FixedLength,
    "adaedl": lambda: AdaEDL(-10.0, 0.9),  # would take an entropy of 605 nats
    "svip": lambda: SVIP(0.15, 1e9),
    "confidence": lambda: Confidence(0.0),
    "draft_verify": lambda: DraftVerify(0.0, 0.9),
}
_MICRO = 1e6


# --- what a rule costs ---------------------------------------------------------------------------


def chain_seconds(
    bench: pair.BenchPair,
    target: Runner,
    draft: Runner,
    policy: SamplingPolicy,
    arguments: argparse.Namespace,
) -> dict[str, list[list[float]]]:
    """By rule, seconds a draft step after each prompt, chain after chain.

    The target reads a block before each, as in decoding.
    """
    rules = {name: rule() for name, rule in NEVER.items()}
    order = list(rules)
    seconds_of: dict[str, list[list[float]]] = {name: [] for name in rules}
    for prompt in bench.prompts:
        for runner in (target, draft):
            runner.reset()
            runner.feed(prompt[None, :-1])
        held = draft.length
        block = prompt[-1].expand(1, arguments.gamma + 1)
        times: dict[str, list[float]] = defaultdict(list)
        for repeat in range(-3, arguments.repeats):
            turn = repeat % len(order)
            for name in order[turn:] + order[:turn]:
                for _ in range(2):  # the second finds what a round of its own left in the caches
                    random_source = GeneratorSource(
                        torch.Generator().manual_seed(derive_seed(repeat + 3, "repeat"))
                    )
                    start = pair.basis(draft, prompt, policy, random_source, rules[name])
                    target.feed(block)
                    target.synchronize()
                    target.rollback(held)
                    started = time.perf_counter()
                    chain = ChainDraft().propose(start, arguments.gamma)
                    draft.synchronize()
                    seconds = time.perf_counter() - started
                    draft.rollback(held)
                    assert chain.drafted == arguments.gamma, "a rule that never stops"
                if repeat >= 0:
                    times[name].append(seconds / chain.steps)
        for name in order:
            seconds_of[name].append(times[name])
    return seconds_of


def alone_seconds(
    rule: StopRule, logits: torch.Tensor, policy: SamplingPolicy, repeats: int
) -> float:
    """Median of the rule's two looks at logits [V] that lie ready."""
    token, times = logits.argmax(), []
    for _ in range(repeats):
        seen = logits.clone()
        started = time.perf_counter()
        rule.stops(seen, policy)
        rule.stops_after(seen, token, policy)
        times.append(time.perf_counter() - started)
    return median(times)


def print_costs(bench: pair.BenchPair, arguments: argparse.Namespace) -> None:
    sizes, room = (1, arguments.gamma + 1), arguments.gamma + 1
    target, draft = bench.runners(arguments.runner, sizes, room, computes_entropy=True)
    print(f"\n{arguments.runner}; chains of {arguments.gamma}; microseconds a draft step")
    for temperature in arguments.temperatures:
        policy = SamplingPolicy(temperature)
        chains = chain_seconds(bench, target, draft, policy, arguments)
        ones = [1.0] * len(bench.prompts)
        draft.reset()
        logits = draft.feed(bench.prompts[0][None])[0, -1]
        print(f"temperature {temperature:g}\n{'rule':14}{'a step':>8}{'host':>7}{'more':>8}")
        for name, prompts in chains.items():
            step = sum(median(seconds) for seconds in prompts) / len(prompts)
            line = f"{name:14}{step * _MICRO:8.0f}"
            if name != NONE:
                alone = alone_seconds(NEVER[name](), logits, policy, 200)
                times_plain = [
                    median(duration / plain for duration, plain in zip(timed, without, strict=True))
                    for timed, without in zip(prompts, chains[NONE], strict=True)
                ]
                times = ratio(Sums(times_plain, ones), pair.CONFIDENCE)
                line += (
                    f"{alone * _MICRO:7.0f}"
                    f"{times.value - 1:+8.1%} [{times.low - 1:+6.1%}, {times.high - 1:+6.1%}]"
                )
            print(line)


# --- where to start ------------------------------------------------------------------------------


class Ending(NamedTuple):
    """When a draft ends: after `most` tokens, or where AdaEDL's guess falls below the threshold."""

    most: int
    threshold: float

    def drafted(self, guesses: Sequence[float]) -> int:
        """Tokens drafted, the first unasked, given the guess before each of them."""
        unsure = (n for n in range(1, self.most) if guesses[n] < self.threshold)
        return next(unsure, self.most)

    def steps(self, drafted: int) -> int:
        """Forwards of the draft: an early end is seen after one more."""
        return drafted if drafted == self.most else drafted + 1


class Watcher(StopRule):
    """Never stops; notes AdaEDL's guess before each token but the first."""

    def __init__(self) -> None:
        self.guesses = [math.nan]

    def stops(
        self, logits: torch.Tensor, policy: SamplingPolicy, entropy: torch.Tensor | None = None
    ) -> bool:
        self.guesses.append(guessed_acceptance(logits, policy, entropy))
        return False


class Written(NamedTuple):
    """A text of the target, by place: the chance that its token is kept, and the guess before it.

    chains: at some places, the guesses along a chain drawn there.
    """

    kept: list[float]
    guesses: list[float]
    chains: dict[int, list[float]]


def write(
    bench: pair.BenchPair, policy: SamplingPolicy, arguments: argparse.Namespace
) -> list[Written]:
    """A text after each prompt, read by both models."""
    gamma = arguments.gamma
    target, draft = bench.runners("eager", (1,), arguments.new_tokens + gamma + 1)
    random_source = GeneratorSource(
        torch.Generator().manual_seed(derive_seed(arguments.seed, "texts", policy.temperature))
    )
    writer = SpeculativeDecoder(
        target, draft, configuration(MethodConfig(), 4), policy, random_source
    )
    rows = []
    for prompt in bench.prompts:
        new = writer.decode(prompt, max_new_tokens=arguments.new_tokens).tokens
        text = torch.tensor([*prompt.tolist(), *new])
        p_logits, q_logits = (
            _read(runner, text[:-1])[len(prompt) - 1 :] for runner in (target, draft)
        )
        at = torch.tensor(new)[:, None]
        p, q = (policy.distribution(logits).gather(1, at) for logits in (p_logits, q_logits))
        # In half precision the text may be none of this reading's at T = 0: q is then 0 or 1.
        kept = torch.where(p > 0.0, (q / p).clamp(max=1.0), q).flatten()
        chains = {}
        draft.reset()
        for position in range(0, len(new) - gamma, arguments.every):
            before, watcher = text[: len(prompt) + position], Watcher()
            ChainDraft().propose(pair.basis(draft, before, policy, random_source, watcher), gamma)
            draft.rollback(len(before))
            chains[position] = watcher.guesses
        guesses = [guessed_acceptance(row, policy) for row in q_logits]
        rows.append(Written(kept.tolist(), guesses, chains))
    return rows


def _read(runner: Runner, text: torch.Tensor) -> torch.Tensor:
    runner.reset()
    return runner.feed(text[None])[0]


class Spent(NamedTuple):
    """Of one text, in expectation, from rounds that had room for gamma tokens."""

    rounds: float
    tokens: float
    drafted: float
    steps: float


def spend(text: Written, ending: Ending, gamma: int) -> Spent:
    """What decoding the text takes with drafts that end so."""
    positions = len(text.kept) - gamma
    begins = [1.0] + [0.0] * len(text.kept)  # by place: the chance that a round begins there
    rounds = tokens = drafted = steps = 0.0
    at_chains = more_drafted = more_steps = 0.0
    for position in range(positions):
        begin = begins[position]
        n = ending.drafted(text.guesses[position:])
        reached = 1.0
        for k in range(n + 1):  # k drafted tokens are kept, and one of the target's follows
            stays = text.kept[position + k] if k < n else 0.0
            begins[position + k + 1] += begin * reached * (1.0 - stays)
            tokens += begin * reached
            reached *= stays
        rounds += begin
        drafted += begin * n
        steps += begin * ending.steps(n)
        if position in text.chains:  # what the draft makes is the text only as far as it is kept
            made = ending.drafted(text.chains[position])
            at_chains += begin
            more_drafted += begin * (made - n)
            more_steps += begin * (ending.steps(made) - ending.steps(n))
    share = rounds / at_chains
    return Spent(rounds, tokens, drafted + share * more_drafted, steps + share * more_steps)


def print_starts(bench: pair.BenchPair, arguments: argparse.Namespace) -> None:
    gamma = arguments.gamma
    print(f"\nc = {arguments.c:g}, v = {arguments.v:g}; adaedl drafts at most {gamma}")
    lengths = {
        f"gamma {gamma_cap}": Ending(gamma_cap, -math.inf) for gamma_cap in range(1, gamma + 1)
    }
    starts = {f"adaedl {start:g}": Ending(gamma, start) for start in arguments.starts}
    for temperature in arguments.temperatures:
        texts = write(bench, SamplingPolicy(temperature), arguments)
        spent = {
            name: [spend(text, ending, gamma) for text in texts]
            for name, ending in (lengths | starts).items()
        }
        speedups = {
            name: Sums(
                [prompt.tokens for prompt in prompts],
                [prompt.steps * arguments.c + prompt.rounds * arguments.v for prompt in prompts],
            )
            for name, prompts in spent.items()
        }
        best = max(lengths, key=lambda name: speedups[name].ratio())
        print(
            f"temperature {temperature:g}\n{'a round':14}{'drafted':>8}{'steps':>7}"
            f"{'kept':>6}{'tau':>6}{'speed-up':>23}{'beside the best: ' + best:>28}"
        )
        for name, prompts in spent.items():
            rounds, tokens, drafted, steps = (sum(parts) for parts in zip(*prompts, strict=True))
            speedup = ratio(speedups[name], pair.CONFIDENCE)
            line = (
                f"{name:14}{drafted / rounds:8.2f}{steps / rounds:7.2f}"
                f"{(tokens - rounds) / drafted:6.0%}{tokens / rounds:6.2f}"
                f"{speedup.value:8.3f} [{speedup.low:5.3f}, {speedup.high:5.3f}]"
            )
            if name != best:
                more = relative(speedups[name], speedups[best], pair.CONFIDENCE)
                line += f"{more.value:+10.1%} [{more.low:+6.1%}, {more.high:+6.1%}]"
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=["cost", "starts", "both"], default="both")
    pair.add_arguments(parser, prompts=12)
    parser.add_argument("--runner", choices=["eager", "compiled"], default="compiled",
                        help="of `cost`")  # fmt: skip
    parser.add_argument("--gamma", type=int, default=8, help="tokens of a chain, at most")
    parser.add_argument("--repeats", type=int, default=20, help="of `cost`: chains a prompt")
    parser.add_argument("--c", type=float, default=0.17, help="a draft step in target steps")
    parser.add_argument("--v", type=float, default=1.5, help="a verification in target steps")
    parser.add_argument("--every", type=int, default=2, help="of `starts`: tokens between chains")
    parser.add_argument("--starts", type=float, nargs="+",
                        default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])  # fmt: skip
    arguments = parser.parse_args()
    bench = pair.load(arguments)
    print(f"{describe('cpu')}; run in {bench.dtype}, {torch.get_num_threads()} threads")
    print(f"{len(bench.prompts)} prompts; [95 % interval over documents]")
    if arguments.part != "starts":
        print_costs(bench, arguments)
    if arguments.part != "cost":
        print_starts(bench, arguments)


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
