"""Verification rules on the same recorded blocks: tokens kept, in expectation over their coins.

    python eval/bench/verify.py                          # the nano pair, gamma 8, K = 2, 4, 8
    python eval/bench/verify.py --temperatures 1 --counts 8 --prompts 24
    python eval/bench/verify.py --target FOLDER --draft FOLDER --prompts-file prompts.jsonl

Standard speculative decoding at gamma writes the text; where each of its rounds began, a block and,
for every K, K sequences are drafted anew and scored by the target. So all rules are asked about the
same contexts; `block` sees the very blocks of `token`, `recursive` the very sequences of `kseq`,
and `distinct` (recursive rejection without replacement) sequences of its own, as it must: only
their first tokens are drawn without replacement. L = 1 asks about that position alone: K tokens
drawn from the same q, with and without replacement, `--draws` times; `optimum` is what no rule for
independent draws can beat there, the value of optimal transport, in expectation over draws.

Nothing is estimated over coins: given the drafts, what a rule keeps is a closed form, summed over
its coins and over what it draws in place of rejected drafts. What is left to chance is which tokens
were drafted and which prompts were taken; intervals are over documents, 95 %, comparisons paired.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

import pair
import result_file
import torch
from expected_lengths import (
    PositionDistribution,
    expected_by_block,
    expected_by_token,
    expected_down,
    kseq_distribution,
    recursive_distribution,
)
from optimal_transport import optimal_acceptance
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval, Sums, ratio, relative
from distillspec.methods.build import configuration
from distillspec.recipe.methods import MethodConfig
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.proposal import DraftRule, Proposal
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

Rule = tuple[str, int, int]
"""Its name, K, and L, the length of a draft."""

AGAINST = {"block": "token", "recursive": "kseq", "distinct": "kseq", "optimum": "kseq"}
CHAINS = {"token": expected_by_token, "block": expected_by_block}
INDEPENDENT: dict[str, PositionDistribution] = {
    "kseq": kseq_distribution,
    "recursive": partial(recursive_distribution, replacement=True),
}
DISTINCT: dict[str, PositionDistribution] = {
    "distinct": partial(recursive_distribution, replacement=False)
}


class Recorder:
    """Both models of the pair, taken to the contexts of a text one after the other."""

    def __init__(
        self, target: Runner, draft: Runner, gamma: int, policy: SamplingPolicy, seed: int
    ) -> None:
        self._target, self._draft = target, draft
        self._gamma, self._policy = gamma, policy
        self._random_source = GeneratorSource(
            torch.Generator().manual_seed(derive_seed(seed, "texts"))
        )

    def round_starts(self, prompt: Tensor, new_tokens: int) -> tuple[Tensor, list[int]]:
        """A text of the target's distribution, and the lengths at which rounds began."""
        standard = configuration(MethodConfig(), self._gamma)
        decoder = SpeculativeDecoder(
            self._target, self._draft, standard, self._policy, self._random_source
        )
        tokens, starts = prompt.tolist(), []
        for current in decoder.rounds(prompt, max_new_tokens=new_tokens):
            starts.append(len(tokens))
            tokens += current.tokens
        for runner in (self._target, self._draft):
            runner.reset()
        return torch.tensor(tokens), starts

    def advance(self, text: Tensor) -> None:
        """Both caches hold the text but for its last token."""
        for runner in (self._target, self._draft):
            if len(text) - 1 > runner.length:
                runner.feed(text[None, runner.length : -1])

    def block(self, rule: DraftRule, text: Tensor) -> tuple[Tensor, Any]:
        """p after each context of a fresh proposal, and the proposal; both caches as before."""
        start = pair.basis(self._draft, text, self._policy, self._random_source, FixedLength())
        proposal: Proposal = rule.propose(start, self._gamma)
        p = self._policy.distribution(proposal.score(self._target, text[-1:]))
        for runner in (self._target, self._draft):
            runner.rollback(len(text) - 1)
        return p, proposal

    def tokens(self, rule: SequencesDraft, q: Tensor) -> list[int]:
        """Its first tokens alone, drawn from q [V]."""
        tokens: list[int] = rule.first(q, self._random_source).tolist()
        return tokens


def expected(recorder: Recorder, text: Tensor, counts: list[int], draws: int) -> dict[Rule, float]:
    """Drafted tokens that each rule keeps after a text, given what was drafted."""
    recorder.advance(text)
    p, chain = recorder.block(ChainDraft(), text)
    L = len(chain.tokens)
    outcomes = {(name, 1, L): keeps(p, chain.q, chain.tokens) for name, keeps in CHAINS.items()}
    for K in counts:
        for distributions, is_distinct in ((INDEPENDENT, False), (DISTINCT, True)):
            several = SequencesDraft(K, distinct=is_distinct)
            p, bundle = recorder.block(several, text)
            for name, distribution in distributions.items():
                outcomes[name, K, L] = expected_down(p, bundle.q, bundle.tree, distribution)
                outcomes[name, K, 1] = 0.0
            if not is_distinct:
                outcomes["optimum", K, 1] = optimal_acceptance(p[0], chain.q[0], K)
            for _ in range(draws):
                drafts = recorder.tokens(several, chain.q[0])
                for name, distribution in distributions.items():
                    kept = distribution(p[0], chain.q[0], drafts)[list(set(drafts))].sum()
                    outcomes[name, K, 1] += float(kept) / draws
    return outcomes


def measure(
    bench: pair.BenchPair, temperature: float, arguments: argparse.Namespace
) -> dict[Rule, Sums]:
    """By rule: tokens kept and rounds, a prompt an entry."""
    gamma, counts = arguments.gamma, arguments.counts
    room = arguments.new_tokens + gamma * max(counts) + 1
    target, draft = bench.runners("eager", (1,), room)
    policy = SamplingPolicy(temperature)
    recorder = Recorder(target, draft, gamma, policy, arguments.seed)
    kept: dict[Rule, list[float]] = defaultdict(list)
    rounds: list[float] = []
    for prompt in bench.prompts:
        text, starts = recorder.round_starts(prompt, arguments.new_tokens)
        at_prompt: dict[Rule, float] = defaultdict(float)
        for start in starts:
            for rule, tokens in expected(recorder, text[:start], counts, arguments.draws).items():
                at_prompt[rule] += tokens
        rounds.append(len(starts))
        for rule, tokens in at_prompt.items():
            kept[rule].append(tokens)
    return {rule: Sums(tokens, rounds) for rule, tokens in kept.items()}


class Entry(NamedTuple):
    """A rule: tokens kept a round, and how much more than by the rule it is compared with.

    kept is without the correction or bonus, which is one more for every rule; tau is with it.
    """

    rule: str
    K: int
    L: int
    kept: Interval
    against: str | None
    more: Interval | None
    more_tau: Interval | None


def report(sums: dict[Rule, Sums]) -> list[Entry]:
    entries = []
    for (name, K, L), kept in sorted(sums.items(), key=lambda item: (-item[0][2], item[0][1])):
        baseline = AGAINST.get(name)
        more = more_tau = None
        if baseline is not None:
            base = sums[baseline, K, L]
            more = relative(kept, base, pair.CONFIDENCE)
            more_tau = relative(_with_next(kept), _with_next(base), pair.CONFIDENCE)
        entries.append(Entry(name, K, L, ratio(kept, pair.CONFIDENCE), baseline, more, more_tau))
    return entries


def _with_next(kept: Sums) -> Sums:
    """With the correction or bonus of each round."""
    tokens = [
        drafted + rounds for drafted, rounds in zip(kept.numerators, kept.denominators, strict=True)
    ]
    return Sums(tokens, kept.denominators)


def print_table(temperature: float, rounds: float, entries: list[Entry]) -> None:
    print(f"\ntemperature {temperature:g}, {rounds:.0f} rounds; drafted tokens kept a round")
    print(f"{'rule':12}{'K':>3}{'L':>3}{'kept':>26}{'more than':>14}")
    for rule, K, L, kept, against, more, _ in entries:
        line = f"{rule:12}{K:3}{L:3}{kept.value:8.3f} [{kept.low:6.3f}, {kept.high:6.3f}]"
        if more is not None:
            line += f"{against:>14}{more.value:+8.1%} [{more.low:+6.1%}, {more.high:+6.1%}]"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair.add_arguments(parser, prompts=12)
    parser.set_defaults(temperatures=[0.5, 1.0])
    parser.add_argument("--gamma", type=int, default=8, help="tokens of a block or sequence")
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8], help="K")
    parser.add_argument("--draws", type=int, default=4, help="draftings a context at L = 1")
    result_file.add_argument(parser)
    arguments = parser.parse_args()
    bench = pair.load(arguments)
    print(
        f"{len(bench.prompts)} prompts, {arguments.new_tokens} new tokens each, "
        f"gamma {arguments.gamma}; run in {bench.dtype}; [95 % interval over documents]"
    )
    tables = {}
    for temperature in arguments.temperatures:
        sums = measure(bench, temperature, arguments)
        rounds = sum(sums["token", 1, arguments.gamma].denominators)
        entries = report(sums)
        print_table(temperature, rounds, entries)
        tables[f"T = {temperature:g}"] = [_row(entry) for entry in entries]
    result_file.write("verify", arguments, tables, len(bench.prompts))


def _row(entry: Entry) -> result_file.Row:
    return {
        "rule": entry.rule,
        "K": entry.K,
        "L": entry.L,
        "kept a round": entry.kept,
        "compared with": entry.against,
        "more, %": result_file.percent(entry.more),
        "more tau, %": result_file.percent(entry.more_tau),
    }


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
