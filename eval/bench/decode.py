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
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pair
import result_file
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval, Sums, ratio, relative
from distillspec.methods.build import configuration
from distillspec.models.loading.precision import describe
from distillspec.recipe.methods import MethodConfig
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.decoding.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

PEERS = ("transformers autoregressive", "transformers speculative")
Name = TypeVar("Name", bound=Hashable)
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
    random_source = GeneratorSource(
        torch.Generator().manual_seed(derive_seed(seed, "ours", kind, temperature))
    )
    decoders: dict[str, AutoregressiveDecoder | SpeculativeDecoder] = {
        "autoregressive": AutoregressiveDecoder(target, policy, random_source),
        "speculative": SpeculativeDecoder(
            target, draft, configuration(MethodConfig(), gamma), policy, random_source
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
    contenders: Mapping[Name, Contender], prompts: Sequence[Tensor], new_tokens: int
) -> dict[Name, list[Decoded]]:
    """Every contender on every prompt; who begins rotates."""
    for contender in contenders.values():
        contender(prompts[0], new_tokens)
    results: dict[Name, list[Decoded]] = {name: [] for name in contenders}
    order = list(contenders)
    for number, prompt in enumerate(prompts):
        turn = number % len(order)
        for name in order[turn:] + order[:turn]:
            results[name].append(contenders[name](prompt, new_tokens))
    return results


class Entry(NamedTuple):
    """A contender; `times` is its speed over that of its counterpart of transformers."""

    contender: str
    tokens_per_second: Interval
    tau: Interval
    times: Interval


def report(results: dict[str, list[Decoded]]) -> list[Entry]:
    speeds = {
        name: Sums([d.tokens for d in rows], [d.seconds for d in rows])
        for name, rows in results.items()
    }
    entries = []
    for name, rows in results.items():
        peer = PEERS[1] if "speculative" in name else PEERS[0]
        speed = ratio(speeds[name], pair.CONFIDENCE)
        more = relative(speeds[name], speeds[peer], pair.CONFIDENCE)
        against = Interval(*(1.0 + bound for bound in more))
        tau = ratio(Sums([d.emitted for d in rows], [d.forwards for d in rows]), pair.CONFIDENCE)
        entries.append(Entry(name, speed, tau, against))
    return entries


def print_table(temperature: float, gamma: int, entries: list[Entry]) -> None:
    print(f"\ntemperature {temperature:g}, gamma {gamma}; [95 % interval over documents]")
    print(f"{'':33}{'tokens/s':>24}{'tau':>8}{'x transformers, same mode':>30}")
    for name, speed, tau, times in entries:
        print(
            f"{name:33}"
            f"{speed.value:8.1f} [{speed.low:6.1f}, {speed.high:6.1f}]"
            f"{tau.value:8.2f}"
            f"{times.value:12.2f} [{times.low:5.2f}, {times.high:5.2f}]"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair.add_arguments(parser, prompts=12)
    parser.add_argument("--gamma", type=int, default=4)
    parser.add_argument("--runners", nargs="+", choices=["eager", "compiled"],
                        default=["eager", "compiled"])  # fmt: skip
    result_file.add_argument(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    transformers_logging.set_verbosity_error()  # it warns of what its assisted decoding does itself
    bench = pair.load(arguments)
    prompts = bench.prompts
    gamma, new_tokens = arguments.gamma, arguments.new_tokens
    runners = {
        kind: bench.runners(kind, (1, gamma + 1), new_tokens + gamma + 1)
        for kind in arguments.runners
    }
    print(f"{describe('cpu')}; run in {bench.dtype}, {torch.get_num_threads()} threads")
    print(
        f"{len(prompts)} prompts, {new_tokens} new tokens each; seconds from prompt to last token"
    )
    tables = {}
    for temperature in arguments.temperatures:
        # transformers draws from the global generator
        torch.manual_seed(derive_seed(arguments.seed, "theirs", temperature))
        contenders = transformers_contenders(bench.target, bench.draft, temperature, gamma)
        for kind, both in runners.items():
            contenders |= our_contenders(kind, *both, temperature, gamma, arguments.seed)
        entries = report(take_turns(contenders, prompts, new_tokens))
        print_table(temperature, gamma, entries)
        tables[f"T = {temperature:g}"] = [_row(entry) for entry in entries]
    result_file.write("decode", arguments, tables, len(prompts))


def _row(entry: Entry) -> result_file.Row:
    return {
        "contender": entry.contender,
        "tokens/s": entry.tokens_per_second,
        "tau": entry.tau,
        "times transformers in the same mode": entry.times,
    }


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
