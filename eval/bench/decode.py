"""Tokens per second of our engine against transformers' `generate`, on the same pair and prompts.

    python eval/bench/decode.py                              # the nano pair, gamma 4, T = 0 and 1
    python eval/bench/decode.py --gamma 6 --temperatures 1 --prompts 16 --threads 2
    python eval/bench/decode.py --target FOLDER --draft FOLDER --prompts-file prompts.jsonl

Contenders: `transformers` and `ours` x `autoregressive` and `speculative`; ours on the runners
`eager` and `compiled`. All continue the same prompts by the same number of tokens in the same type
and with the same number of threads; end-of-text is ignored. They take turns prompt by prompt, in an
order that rotates, so that drift of the machine hits all alike; each has decoded one prompt before.

The clock of all contenders runs from the prompt to the last token, reading the prompt included.
transformers drafts gamma tokens because that is set on the draft's `generation_config`: as an
argument of `generate` it is ignored (5.23). Its tau is tokens emitted per forward of the target,
which a hook counts, shorter rounds at the end included; ours is the engine's, without cut rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from distillspec.corpus.prompts import load_prompts
from distillspec.errors import DistillSpecError
from distillspec.measure.bootstrap import Interval, Resampling, Sums, ratio, relative
from distillspec.measure.methods import configuration
from distillspec.models.compiled import make_runner
from distillspec.models.loading import load_model, load_tokenizer
from distillspec.models.precision import describe, fast_dtype
from distillspec.models.runner import vocabulary_size
from distillspec.models.vocabulary import check_pair
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Method
from distillspec.speculation.chance import GeneratorChance
from distillspec.speculation.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

PEERS = ("transformers autoregressive", "transformers speculative")
Contender = Callable[[Tensor, int], "Decoded"]


class Decoded(NamedTuple):
    """One prompt through one contender; tau is emitted / forwards of the target."""

    tokens: int
    seconds: float
    emitted: int
    forwards: int


def transformers_contenders(
    target: PreTrainedModel, draft: PreTrainedModel, temperature: float, gamma: int
) -> dict[str, Contender]:
    """`generate`, plain and with an assistant that drafts exactly gamma tokens."""
    for model in (target, draft):
        assert model.generation_config is not None
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
    settings = draft.generation_config
    assert settings is not None
    settings.num_assistant_tokens = gamma
    settings.num_assistant_tokens_schedule = "constant"
    settings.assistant_confidence_threshold = 0.0
    sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None}
    if temperature > 0.0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}

    def contender(**extra: Any) -> Contender:
        def decode(prompt: Tensor, new_tokens: int) -> Decoded:
            calls = 0

            def count(*_: Any) -> None:
                nonlocal calls
                calls += 1

            hook = target.register_forward_hook(count)
            try:
                started = time.perf_counter()
                output = target.generate(  # type: ignore[operator]
                    prompt[None],
                    attention_mask=torch.ones_like(prompt[None]),
                    max_new_tokens=new_tokens,
                    **sampling,
                    **extra,
                )
                seconds = time.perf_counter() - started
            finally:
                hook.remove()
            tokens = output.shape[1] - len(prompt)
            return Decoded(tokens, seconds, tokens, calls)

        return decode

    return {PEERS[0]: contender(), PEERS[1]: contender(assistant_model=draft)}


def our_contenders(
    kind: str, target: Runner, draft: Runner, temperature: float, gamma: int, seed: int
) -> dict[str, Contender]:
    """Our two decoders on one pair of runners."""
    policy = SamplingPolicy(temperature)
    chance = GeneratorChance(torch.Generator().manual_seed(seed))
    decoders = {
        "autoregressive": AutoregressiveDecoder(target, policy, chance),
        "speculative": SpeculativeDecoder(
            target, draft, configuration(Method(), gamma), policy, chance
        ),
    }

    def contender(decoder: AutoregressiveDecoder | SpeculativeDecoder) -> Contender:
        def decode(prompt: Tensor, new_tokens: int) -> Decoded:
            started = time.perf_counter()
            generation = decoder.decode(prompt, max_new_tokens=new_tokens)
            seconds = time.perf_counter() - started
            counts = generation.counts()
            return Decoded(len(generation.tokens), seconds, counts.emitted, counts.verifications)

        return decode

    return {f"ours {name}, {kind}": contender(decoder) for name, decoder in decoders.items()}


def take_turns(
    contenders: dict[str, Contender], prompts: Sequence[Tensor], new_tokens: int
) -> dict[str, list[Decoded]]:
    """Every contender on every prompt; who begins rotates."""
    for contender in contenders.values():
        contender(prompts[0], new_tokens)
    results: dict[str, list[Decoded]] = {name: [] for name in contenders}
    order = list(contenders)
    for number, prompt in enumerate(prompts):
        turn = number % len(order)
        for name in order[turn:] + order[:turn]:
            results[name].append(contenders[name](prompt, new_tokens))
    return results


def report(results: dict[str, list[Decoded]], how: Resampling) -> list[dict[str, Any]]:
    """One entry a contender: tokens/s, tau, and the ratio to its counterpart of transformers."""
    speeds = {
        name: Sums([d.tokens for d in rows], [d.seconds for d in rows])
        for name, rows in results.items()
    }
    entries = []
    for name, rows in results.items():
        peer = PEERS[1] if "speculative" in name else PEERS[0]
        speed = ratio(speeds[name], how)
        more = relative(speeds[name], speeds[peer], how)
        against = Interval(*(1.0 + bound for bound in more))
        tau = ratio(Sums([d.emitted for d in rows], [d.forwards for d in rows]), how)
        entries.append(
            {
                "contender": name,
                "tokens_per_second": speed._asdict(),
                "tau": tau._asdict(),
                "ratio_to_transformers": against._asdict(),
            }
        )
    return entries


def print_table(temperature: float, gamma: int, entries: list[dict[str, Any]]) -> None:
    print(f"\ntemperature {temperature:g}, gamma {gamma}; [95 % interval over prompts]")
    print(f"{'':33}{'tokens/s':>24}{'tau':>8}{'x transformers, same mode':>30}")
    for entry in entries:
        speed, against = entry["tokens_per_second"], entry["ratio_to_transformers"]
        print(
            f"{entry['contender']:33}"
            f"{speed['value']:8.1f} [{speed['low']:6.1f}, {speed['high']:6.1f}]"
            f"{entry['tau']['value']:8.2f}"
            f"{against['value']:12.2f} [{against['low']:5.2f}, {against['high']:5.2f}]"
        )


def read_prompts(arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> list[Tensor]:
    """Held-out prompts of the recipe, or of a JSONL file with the field `prompt`."""
    recipe = load_recipe(arguments.recipe)
    if not isinstance(recipe, Recipe):
        raise DistillSpecError(
            "this recipe makes a model; it names no prompts",
            where=arguments.recipe,
            mend="give the recipe of a distillation",
        )
    data = recipe.data
    if arguments.prompts_file is not None:
        lines = Path(arguments.prompts_file).read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["prompt"] for line in lines if line.strip()]
        rows = [tokenizer.encode(text)[-data.max_prompt_tokens :] for text in texts]
    else:
        held_out = load_prompts(data, tokenizer, seed=recipe.seed).held_out
        rows = [list(prompt.tokens) for prompt in held_out]
    return [torch.tensor(row) for row in rows[: arguments.prompts]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="checkpoints/nano-python/target")
    parser.add_argument("--draft", default="checkpoints/nano-python/draft")
    parser.add_argument("--recipe", default="recipes/nano-python.yaml", help="names the prompts")
    parser.add_argument("--prompts-file", help="JSONL with `prompt`, in place of the recipe's")
    parser.add_argument("--prompts", type=int, default=12, help="number of prompts")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens decoded per prompt")
    parser.add_argument("--gamma", type=int, default=4)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--runners", nargs="+", choices=["eager", "compiled"],
                        default=["eager", "compiled"])  # fmt: skip
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    transformers_logging.set_verbosity_error()  # it warns of what its assisted decoding does itself
    dtype = fast_dtype("cpu") if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    tokenizer = load_tokenizer(arguments.target, what="target")
    target = load_model(arguments.target, dtype=dtype, what="target")
    draft = load_model(arguments.draft, dtype=dtype, what="draft")
    vocabulary = check_pair(
        tokenizer,
        load_tokenizer(arguments.draft, what="draft"),
        vocabulary_size(target),
        vocabulary_size(draft),
        where=f"{arguments.target}, {arguments.draft}",
    )
    prompts = read_prompts(arguments, tokenizer)
    gamma, new_tokens = arguments.gamma, arguments.new_tokens
    capacity = max(len(prompt) for prompt in prompts) + new_tokens + gamma + 1
    runners = {
        kind: (
            make_runner(target, kind, capacity, (1, gamma + 1), vocabulary=vocabulary),
            make_runner(draft, kind, capacity, (1, 2), vocabulary=vocabulary),
        )
        for kind in arguments.runners
    }
    tables = {}
    for temperature in arguments.temperatures:
        torch.manual_seed(arguments.seed)  # transformers draws from the global generator
        contenders = transformers_contenders(target, draft, temperature, gamma)
        for kind, pair in runners.items():
            contenders |= our_contenders(kind, *pair, temperature, gamma, arguments.seed)
        results = take_turns(contenders, prompts, new_tokens)
        tables[temperature] = report(results, Resampling(seed=arguments.seed))
    if arguments.json:
        print(json.dumps({"gamma": gamma, "machine": describe("cpu"), "tables": tables}))
        return
    print(f"{describe('cpu')}; run in {dtype}, {torch.get_num_threads()} threads")
    print(
        f"{len(prompts)} prompts, {new_tokens} new tokens each; seconds from prompt to last token"
    )
    for temperature, entries in tables.items():
        print_table(temperature, gamma, entries)


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
