"""Where AdaEDL's threshold goes over thousands of rounds, and what decoding with it is then worth.

    python eval/bench/adaedl.py                          # the nano pair, T = 0 and 1
    python eval/bench/adaedl.py --wanted 0.5 0.7 0.9 --c 0.17 --v 1.5

The shipped rule, with several acceptance rates that it is told to reach, goes through texts of the
target again and again: at each round it drafts as far as its threshold allows, a coin decides for
every drafted token whether it is kept, and the rule learns. What the draft would have made after a
rejected token is taken to end where the text's own tokens would have ended it. A row is of the last
passes, when the threshold has come to rest, or still moves; `threshold` is the last one. The fixed
lengths beside it are exact (as in stop.py), c and v in one-token target steps as `evaluate`
measures them.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence

import pair
import result_file
import torch
from stop import Ending, Written, spend, write

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Sums, ratio, relative
from distillspec.models.loading.precision import describe
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.draft.entropy import AdaEDL
from distillspec.speculation.sampling import SamplingPolicy


class Walk:
    """Rounds with one rule, text after text; sums by text."""

    def __init__(self, rule: AdaEDL, gamma: int, seed: int) -> None:
        self._rule, self._gamma = rule, gamma
        self._coins = random.Random(derive_seed(seed, "coins of a walk"))

    def through(self, texts: Sequence[Written]) -> list[tuple[int, int, int, int]]:
        """Rounds, tokens, drafted tokens and draft steps of each text."""
        return [self._text(text) for text in texts]

    def _text(self, text: Written) -> tuple[int, int, int, int]:
        rounds = tokens = drafted = steps = position = 0
        while position < len(text.kept) - self._gamma:
            ending = Ending(self._gamma, self._rule.threshold)
            n = ending.drafted(text.guesses[position:])
            kept = 0
            while kept < n and self._coins.random() < text.kept[position + kept]:
                kept += 1
            self._rule.learn(n, kept, self._gamma)
            rounds, tokens = rounds + 1, tokens + kept + 1
            drafted, steps = drafted + n, steps + ending.steps(n)
            position += kept + 1
        return rounds, tokens, drafted, steps


def print_table(texts: Sequence[Written], arguments: argparse.Namespace) -> list[result_file.Row]:
    """Also returns the rows, for the file of results."""
    rows: list[result_file.Row] = []
    gamma, c, v = arguments.gamma, arguments.c, arguments.v

    def speedup(tokens: Sequence[float], steps: Sequence[float], rounds: Sequence[float]) -> Sums:
        return Sums(list(tokens), [s * c + r * v for s, r in zip(steps, rounds, strict=True)])

    fixed = {}
    for gamma_cap in range(1, gamma + 1):
        spent = [spend(text, Ending(gamma_cap, -math.inf), gamma) for text in texts]
        fixed[gamma_cap] = speedup(
            *zip(*((s.tokens, s.steps, s.rounds) for s in spent), strict=True)
        )
    best = max(fixed, key=lambda gamma_cap: fixed[gamma_cap].ratio())
    reached = ratio(fixed[best], pair.CONFIDENCE)
    print(
        f"best fixed length {best}: {reached.value:.3f} [{reached.low:.3f}, {reached.high:.3f}]\n"
        f"{'wanted':>7}{'rounds':>8}{'threshold':>11}{'drafted':>9}{'kept':>6}{'tau':>6}"
        f"{'speed-up':>9}{'beside the best fixed length':>32}"
    )
    for wanted in arguments.wanted:
        rule = AdaEDL(arguments.start, wanted)
        walk = Walk(rule, gamma, arguments.seed)
        passes = [walk.through(texts) for _ in range(arguments.passes)]
        last = passes[len(passes) // 2 :]
        rounds, tokens, drafted, steps = (
            [sum(entry[number][what] for entry in last) for number in range(len(texts))]
            for what in range(4)
        )
        measured = speedup(tokens, steps, rounds)
        more = relative(measured, fixed[best], pair.CONFIDENCE)
        row = {"wanted rate": wanted, "best fixed gamma": best, "threshold": rule.threshold}
        row |= {"tau": sum(tokens) / sum(rounds), "predicted speed-up": measured.ratio()}
        against = "predicted speed against the best fixed gamma, %"
        rows.append({**row, against: result_file.percent(more)})
        print(
            f"{wanted:7.2f}{sum(entry[0] for done in passes for entry in done):8d}"
            f"{rule.threshold:11.2f}{sum(drafted) / sum(rounds):9.2f}"
            f"{(sum(tokens) - sum(rounds)) / sum(drafted):6.0%}{sum(tokens) / sum(rounds):6.2f}"
            f"{measured.ratio():9.3f}{f'{more.value:+.1%} [{more.low:+.1%}, {more.high:+.1%}]':>32}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair.add_arguments(parser, prompts=32)
    parser.add_argument("--gamma", type=int, default=8, help="tokens of a chain, at most")
    parser.add_argument("--start", type=float, default=0.4, help="where the threshold starts")
    parser.add_argument("--wanted", type=float, nargs="+",
                        default=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])  # fmt: skip
    parser.add_argument("--passes", type=int, default=12, help="through all texts")
    parser.add_argument("--c", type=float, default=0.17, help="a draft step in target steps")
    parser.add_argument("--v", type=float, default=1.45, help="a verification in target steps")
    result_file.add_argument(parser)
    arguments = parser.parse_args()
    arguments.every = arguments.new_tokens  # no chains beside the texts
    bench = pair.load(arguments)
    print(f"{describe('cpu')}; {len(bench.prompts)} prompts; c = {arguments.c:g}, "
          f"v = {arguments.v:g}; chains of at most {arguments.gamma}")  # fmt: skip
    tables = {}
    for temperature in arguments.temperatures:
        print(f"temperature {temperature:g}")
        with torch.inference_mode():
            texts = write(bench, SamplingPolicy(temperature), arguments)
        tables[f"T = {temperature:g}"] = print_table(texts, arguments)
    result_file.write("adaedl", arguments, tables, len(bench.prompts))


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
