"""Targets of several sizes, each alone and with its draft: what they say, and how fast.

    python eval/bench/chain.py --pair large TARGET DRAFT --pair middle TARGET DRAFT
    python eval/bench/chain.py --pair ... --gammas 2 4 --texts 128 --prompts 24

For the question whether to distil the target first and then the draft (DistillSpec, 2310.08461):
a smaller target answers faster and worse, and a draft is dearer beside it. Of each pair: `nats`,
the target's loss on the held-out text of the recipe's own files; `parses`, the share of its
completions that keep a program parseable; alpha and expected tau on texts that this target draws;
tokens per second alone and with the draft at each gamma. All pairs and gammas take turns prompt by
prompt, so that drift of the machine hits all alike; ratios are to the first target alone. Quality
is the target's: decoding is lossless. Brackets are 95 % intervals over documents.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import result_file
import torch
from decode import Contender, Decoded, our_contenders, take_turns
from pair import CONFIDENCE, Models, held_out_prompts, load_models

from distillspec.corpus.sources.prompts import Prompt
from distillspec.errors import DistillSpecError
from distillspec.measure.exact.corpus_alpha import surprise
from distillspec.measure.exact.target_texts import TextFacts, drawn_texts, text_facts
from distillspec.measure.stats.intervals import Interval, Sums, ratio, relative
from distillspec.measure.summary.completions import completion_text
from distillspec.measure.summary.quality import Completion, score
from distillspec.models.loading.precision import describe, fast_dtype
from distillspec.models.runners.compiled import make_runner
from distillspec.models.sampling.generate import DrawnText
from distillspec.models.vocabulary.eos_tokens import find_eos_tokens
from distillspec.models.vocabulary.tokenizer_pair import check_pair
from distillspec.speculation.limits import up_to_end
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

PARSES = "eval/metrics/parses"
ALONE, DRAFT = "alone", "draft"


class Quality(NamedTuple):
    """Of a target at one temperature, and of its draft on that target's texts."""

    nats: Interval
    parses: dict[str, float]
    facts: TextFacts


def quality(
    models: Models, prompts: Sequence[Prompt], policy: SamplingPolicy, tokens: int
) -> Quality:
    own = [
        DrawnText(tuple(drawn.tokens), tuple(drawn.response)) for drawn in prompts if drawn.response
    ]
    nats = surprise(models.target, own, vocab_size=models.vocab_size)
    texts = drawn_texts(
        models.target, prompts, policy, tokens=tokens, seed=0, vocab_size=models.vocab_size
    )
    ends = find_eos_tokens(models.target, models.tokenizer).ids
    facts = text_facts(
        models.target,
        {DRAFT: models.draft},
        texts,
        policy,
        documents=[prompt.document for prompt in prompts],
        ends=ends,
        vocab_size=models.vocab_size,
    )
    completions = []
    for prompt, text in zip(prompts, texts, strict=True):
        answer = up_to_end(text.response, ends)[0]
        words = completion_text(models.tokenizer, text.prompt, answer)
        completions.append(Completion(prompt.text, words, answer[-1] in ends, None))
    return Quality(
        ratio(Sums(nats.sums, nats.tokens), CONFIDENCE), score(PARSES, completions), facts
    )


def runners_of(models: Models, gammas: Sequence[int], capacity: int) -> tuple[Runner, Runner]:
    """Target and draft, compiled for every gamma."""
    sizes = (1, *(gamma + 1 for gamma in gammas))
    return (
        make_runner(models.target, "compiled", capacity, sizes, vocab_size=models.vocab_size),
        make_runner(models.draft, "compiled", capacity, (1, 2), vocab_size=models.vocab_size),
    )


def contenders_of(
    runners: tuple[Runner, Runner], gammas: Sequence[int], temperature: float, seed: int
) -> dict[str, Contender]:
    """The target alone, and with its draft at each gamma."""
    contenders: dict[str, Contender] = {}
    for gamma in gammas:
        both = our_contenders("compiled", *runners, temperature, gamma, seed)
        alone, together = both.values()
        contenders |= {ALONE: alone, f"gamma {gamma}": together}
    return contenders


def quality_rows(qualities: dict[str, Quality], gammas: Sequence[int]) -> list[result_file.Row]:
    rows: list[result_file.Row] = []
    for name, quality in qualities.items():
        facts = quality.facts
        taus: dict[str, result_file.Value] = {
            f"expected tau, gamma {gamma}": ratio(facts.expected_tau(DRAFT, gamma), CONFIDENCE)
            for gamma in gammas
        }
        rows.append(
            {
                "target": name,
                "nats, own text": quality.nats,
                "parses, %": 100.0 * quality.parses["parses"],
                "completions judged": int(quality.parses["judged"]),
                "alpha": ratio(facts.alpha(DRAFT), CONFIDENCE),
                **taus,
            }
        )
    return rows


def speed_rows(results: dict[tuple[str, str], list[Decoded]]) -> list[result_file.Row]:
    speeds = {
        name: Sums([row.tokens for row in rows], [row.seconds for row in rows])
        for name, rows in results.items()
    }
    first = next(iter(speeds))

    def times(speed: Sums, base: Sums) -> Interval:
        return Interval(*(1.0 + bound for bound in relative(speed, base, CONFIDENCE)))

    return [
        {
            "decoding": ", ".join(name),
            "tokens/s": ratio(speed, CONFIDENCE),
            f"times {', '.join(first)}": times(speed, speeds[first]),
            "times its own target alone": times(speed, speeds[name[0], ALONE]),
        }
        for name, speed in speeds.items()
    ]


def load_all(pairs: Sequence[tuple[str, str, str]]) -> dict[str, Models]:
    """By name. All read the same prompts as the same tokens, of one vocabulary."""
    names = [name for name, *_ in pairs]
    if len(set(names)) < len(names):
        raise DistillSpecError(
            "two pairs have one name", where=f"--pair {', '.join(names)}", fix="name them apart"
        )
    dtype = fast_dtype("cpu")
    loaded = {name: load_models(target, draft, dtype) for name, target, draft in pairs}
    first = loaded[names[0]]
    vocab_size = first.vocab_size
    for name, models in loaded.items():
        vocab_size = check_pair(
            first.tokenizer,
            models.tokenizer,
            vocab_size,
            models.vocab_size,
            where=f"--pair {names[0]} and {name}",
        )
    return {name: models._replace(vocab_size=vocab_size) for name, models in loaded.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pair", nargs=3, action="append", required=True, metavar=("NAME", "TARGET", "DRAFT")
    )
    parser.add_argument("--recipe", default="recipes/nano-plateau.yaml", help="names the prompts")
    parser.add_argument("--gammas", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--texts", type=int, default=128, help="prompts of quality, alpha, tau")
    parser.add_argument("--prompts", type=int, default=24, help="prompts that are timed")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens decoded per prompt")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--seed", type=int, default=0)
    result_file.add_argument(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    pairs = load_all(arguments.pair)
    held_out = held_out_prompts(arguments.recipe, next(iter(pairs.values())).tokenizer)
    prompts = held_out[: arguments.texts]
    timed = [torch.tensor(prompt.tokens) for prompt in held_out[: arguments.prompts]]
    capacity = max(map(len, timed)) + arguments.new_tokens + max(arguments.gammas) + 1
    runners = {
        name: runners_of(models, arguments.gammas, capacity) for name, models in pairs.items()
    }
    print(
        f"{describe('cpu')}; {torch.get_num_threads()} threads; {len(prompts)} texts, "
        f"{len(timed)} timed prompts, {arguments.new_tokens} new tokens each"
    )
    tables = {}
    for temperature in arguments.temperatures:
        policy = SamplingPolicy(temperature)
        qualities = {
            name: quality(models, prompts, policy, arguments.new_tokens)
            for name, models in pairs.items()
        }
        contenders = {
            (name, form): contender
            for name, both in runners.items()
            for form, contender in contenders_of(
                both, arguments.gammas, temperature, arguments.seed
            ).items()
        }
        results = take_turns(contenders, timed, arguments.new_tokens)
        quality_table = quality_rows(qualities, arguments.gammas)
        speed_table = speed_rows(results)
        print(f"\ntemperature {temperature:g}\n")
        print(f"{result_file.markdown(quality_table)}\n{result_file.markdown(speed_table)}")
        tables[f"targets, T = {temperature:g}"] = quality_table
        tables[f"decoding, T = {temperature:g}"] = speed_table
    result_file.write("chain", arguments, tables, len(prompts))


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
