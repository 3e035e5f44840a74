"""Adaptive methods in virtual time: AdaEDL and choosers as a share of the best fixed gamma.

    python eval/bench/walk.py                                   # the nano pair, T = 0 and 1
    python eval/bench/walk.py --costs 0.1,1.15 0.19,1.25 --prompts-file prompts.jsonl

No clock: the target writes a text after each prompt, and both models read it once. The shipped
rules and choosers then go through the texts round by round. A drafted token is a token of the text,
kept with probability min(1, q/p), and the draft's entropies are those on the text. Rounds are
priced by given costs c,v: a draft step, and a verification of 8 tokens, in target steps. Shorter
blocks are padded to graphs of 2 and 5 tokens. All learn from nothing, and what they lose meanwhile
counts. Intervals are over source documents. The best gamma is picked on the same texts, which
flatters it a little.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from typing import NamedTuple

import pair
import result_file
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval, Sums, relative
from distillspec.methods.choosers import PRIOR_ROUNDS
from distillspec.models.sampling.generate import generate
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.choose.chooser import Chooser, Reward, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.exp3 import EXP3
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.choose.forecast import Prior
from distillspec.speculation.choose.ucb import UCB
from distillspec.speculation.draft.calibrated import CalibratedAdaEDL
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.entropy import AdaEDL, entropy_nats
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.round_times import BlockTime, RoundTimes
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.token import verify_token

GAMMAS = (1, 2, 3, 4, 6, 8)
_MOST = max(GAMMAS)
_FIRST_STEP = 1.3  # a round's first draft step over the others: it finds cold caches
_LOGITS, _TOKEN = torch.zeros(2), torch.tensor(0)  # rules read the entropy alone


class Written(NamedTuple):
    """A text by token: the probability that it is kept, and the draft's entropy before it."""

    kept: list[float]
    entropies: list[Tensor]


def times_of(c: float, v: float) -> RoundTimes:
    """Rounds at these costs, with blocks that are padded to graphs of 2, 5 and 9 tokens."""
    padded = {1: 1.0 + (v - 1.0) / 4, 4: (1.0 + v) / 2, 8: v}
    return RoundTimes(
        {
            gamma: BlockTime(
                gamma,
                gamma,
                c * (_FIRST_STEP + gamma - 1),
                padded[min(size for size in padded if size >= gamma)],
            )
            for gamma in range(1, _MOST + 1)
        },
        unread=0.3 * c,
    )


@torch.no_grad()
def write(
    bench: pair.BenchPair, temperature: float, arguments: argparse.Namespace
) -> list[Written]:
    """A text of the target after each prompt, read by both models."""
    policy = SamplingPolicy(temperature)
    responses = generate(
        bench.target,
        bench.prompts,
        max_new_tokens=arguments.new_tokens,
        policy=policy,
        random_source=GeneratorSource(
            torch.Generator().manual_seed(
                derive_seed(arguments.seed, "texts of a walk", temperature)
            )
        ),
        eos_token_ids=frozenset(),
        pad_token=0,
        vocab_size=bench.vocab_size,
    )
    texts = []
    for prompt, response in zip(bench.prompts, responses, strict=True):
        text = torch.cat([prompt, response])[None]
        p_logits, q_logits = (
            model(text).logits[0, len(prompt) - 1 : -1, : bench.vocab_size]
            for model in (bench.target, bench.draft)
        )
        at = response[:, None]
        p, q = (policy.distribution(logits).gather(1, at) for logits in (p_logits, q_logits))
        # In half precision the text may be none of this reading's at T = 0: q is then 0 or 1.
        kept = torch.where(p > 0.0, (q / p).clamp(max=1.0), q).flatten().tolist()
        entropies = [torch.tensor(entropy_nats(row, policy)) for row in q_logits]
        texts.append(Written(kept, entropies))
    return texts


def drafted(stop: StopRule, gamma: int, entropies: Sequence[Tensor]) -> tuple[int, int]:
    """Drafted tokens and draft steps of a chain, as `ChainDraft` asks the rule."""
    policy = SamplingPolicy()
    stop.begins(_LOGITS, policy, entropies[0])
    tokens = steps = 1
    while tokens < gamma and not stop.stops_after(_LOGITS, _TOKEN, policy):
        steps += 1
        if stop.stops(_LOGITS, policy, entropies[tokens]):
            break
        tokens += 1
    return tokens, steps


def walk(texts: Sequence[Written], way: Chooser, times: RoundTimes, seed: int) -> Sums:
    """Tokens over time of each text, round by round."""
    coins = random.Random(derive_seed(seed, "coins of a walk"))
    tokens_of, time_of = [], []
    for text in texts:
        way.begin()
        position, total, was_whole = 0, 0.0, False
        while position < len(text.kept) - _MOST:
            arm = way.choose()
            length, steps = drafted(arm.stop, arm.gamma, text.entropies[position:])
            accepted = 0
            while accepted < length and coins.random() < text.kept[position + accepted]:
                accepted += 1
            took = times.between(steps, length, float(was_whole))
            was_whole = accepted == length == steps
            arm.stop.learn(length, accepted, arm.gamma)
            way.learn(RoundOutcome(accepted + 1, took, drafted=length))
            position += accepted + 1
            total += took
        tokens_of.append(float(position))
        time_of.append(total)
    return Sums(tokens_of, time_of)


def arm_of(gamma: int, stop: StopRule) -> Configuration:
    return Configuration("standard", gamma, ChainDraft(), stop, verify_token)


def contenders(times: RoundTimes, seed: int) -> dict[str, Chooser]:
    """Adaptive methods that know nothing yet."""
    fastest = max((gamma + 1) / times.at(gamma) for gamma in GAMMAS)
    reward = Reward(_MOST, most_tokens_per_second=fastest)

    def arms() -> list[Configuration]:
        return [arm_of(gamma, FixedLength()) for gamma in GAMMAS]

    def source() -> GeneratorSource:
        return GeneratorSource(torch.Generator().manual_seed(derive_seed(seed, "arms of a walk")))

    prior = Prior(PRIOR_ROUNDS, [times] * len(GAMMAS), 1.0)
    return {
        "adaedl": Fixed(arm_of(_MOST, CalibratedAdaEDL(times, _MOST))),
        "adaedl 0.5": Fixed(arm_of(_MOST, AdaEDL(0.4, 0.5))),
        "adaedl 0.9": Fixed(arm_of(_MOST, AdaEDL(0.4, 0.9))),
        "ucbspec": UCB(arms(), reward, scale=0.5, prior=prior),
        "ucbspec, no prior": UCB(arms(), reward, scale=0.5),
        "exp3spec": EXP3(arms(), reward, source(), prior=prior),
        "exp3spec, no prior": EXP3(arms(), reward, source()),
    }


def table_of(texts: Sequence[Written], c: float, v: float, seed: int) -> list[result_file.Row]:
    """The speed of each contender as a share of the best fixed gamma's."""
    times = times_of(c, v)
    fixed = {
        gamma: walk(texts, Fixed(arm_of(gamma, FixedLength())), times, seed)
        for gamma in range(1, _MOST + 1)
    }
    best = max(fixed, key=lambda gamma: fixed[gamma].ratio())
    rows: list[result_file.Row] = []
    for name, way in contenders(times, seed).items():
        more = relative(walk(texts, way, times, seed), fixed[best], pair.CONFIDENCE)
        share = Interval(*(1.0 + bound for bound in more))
        rows.append(
            {
                "contender": name,
                "of the best fixed gamma, %": result_file.percent(share),
                "best fixed gamma": best,
                "its speed-up": fixed[best].ratio(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair.add_arguments(parser, prompts=48)
    parser.add_argument(
        "--costs", nargs="+", default=["0.1,1.15", "0.19,1.25", "0.3,1.5"], help="c,v of each table"
    )
    result_file.add_argument(parser)
    arguments = parser.parse_args()
    bench = pair.load(arguments)
    print(f"{len(bench.prompts)} prompts, {arguments.new_tokens} tokens after each")
    tables: dict[str, list[result_file.Row]] = {}
    for temperature in arguments.temperatures:
        texts = write(bench, temperature, arguments)
        tokens = sum(len(text.kept) for text in texts)
        kept = sum(sum(text.kept) for text in texts) / tokens
        for costs in arguments.costs:
            c, v = (float(number) for number in costs.split(","))
            title = f"T = {temperature:g}, {kept:.0%} of drafted tokens kept; c = {c:g}, v = {v:g}"
            tables[title] = table_of(texts, c, v, arguments.seed)
            print(f"\n{title}\n\n{result_file.markdown(tables[title])}", flush=True)
    result_file.write("walk", arguments, tables, len(bench.prompts))


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
