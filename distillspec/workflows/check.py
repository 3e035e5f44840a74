"""The verb `check`: before training, whether the pair fits and what it can gain on this machine."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from distillspec.assembly import served_target
from distillspec.assembly.pair import dtype_of, load_pair, prepare_process
from distillspec.assembly.text import pair_prompts
from distillspec.assembly.trimmed_head import ForeseenHead, foreseen_head
from distillspec.export.engines import EngineVerdict, engine_verdicts
from distillspec.measure.pair_check import Expectation, PairCheck, assess
from distillspec.measure.summary.file import without_nan
from distillspec.measure.timed.memory import TrainingLoad
from distillspec.models.loading.model_facts import folder_facts
from distillspec.models.loading.precision import cast_parameters
from distillspec.models.surgery.made_draft import facts
from distillspec.recipe.endpoint import EndpointConfig, refuse_endpoint
from distillspec.recipe.loading import load_suite
from distillspec.recipe.schema import Recipe
from distillspec.runtime.terminal import Terminal
from distillspec.text.foreign import say, visible
from distillspec.text.numbers import NO_INTERVAL, interval, known, number

BELOW_FLOOR = 2  # exit code


def run(recipe: Recipe, *, as_json: bool, min_speedup: float | None) -> int:
    """Print what was found; 0, or BELOW_FLOOR where the prediction is below `min_speedup`."""
    prepare_process(recipe)
    libraries = _resident_bytes()  # no model is loaded yet
    if recipe.pair.endpoint is not None:
        return _endpoint(recipe, recipe.pair.endpoint, as_json=as_json, min_speedup=min_speedup)
    suite = load_suite(recipe.evaluate.suite)
    pair = load_pair(recipe)
    in_target, named = folder_facts(recipe.pair.target_weights, "target"), recipe.pair.draft
    in_draft = folder_facts(named, "draft") if isinstance(named, str) else None
    verdicts = []
    if pair.bridge is None:
        verdicts = engine_verdicts(in_target, in_draft or facts(pair.draft()))
    sets = pair_prompts(pair)
    head = foreseen_head(pair, sets.training)
    if head is not None:
        pair = head.pair
    kind = dtype_of(suite.runner.dtype, pair.device)
    cast_parameters(pair.target.model, kind)
    plan, data = recipe.distill, recipe.data
    trainable = pair.trainable_draft()
    # On stderr: what is printed to stdout may be JSON.
    with Terminal(stderr=True).status("measuring the pair") as status:
        fitness = assess(
            pair.target.model,
            pair.draft(kind),
            pair.tokenizer,
            sets.held_out,
            suite=suite,
            load=TrainingLoad(
                sequences=plan.micro_batch_size or plan.batch_size,
                tokens_per_sequence=data.max_prompt_tokens + data.max_response_tokens,
                chunk_tokens=plan.chunk_tokens,
                trainable_parameters=sum(
                    p.numel() for p in trainable.parameters() if p.requires_grad
                ),
                itemsize=dtype_of(recipe.hardware.precision, pair.device).itemsize,
                process=libraries if pair.device.type == "cpu" else 0,
            ),
            device=pair.device,
            vocab_size=pair.vocab_size,
            ends=pair.eos_token_ids,
            progress=status.update,
        )
    if as_json:
        found = {**asdict(fitness), "predicted_speedup": fitness.predicted_speedup()}
        if head is not None:
            found["draft_head"] = {"keep": len(pair.kept or ()), "counted_in": head.counted_in}
        found["engines"] = [verdict._asdict() for verdict in verdicts]
        say(json.dumps(without_nan(found), indent=2))
    else:
        _print(recipe, fitness, verdicts, head)
    below = min_speedup is not None and not fitness.predicted_speedup() >= min_speedup
    if below and not as_json:
        Terminal().print(
            f"predicted speed-up {known(fitness.predicted_speedup())} is below the floor "
            f"{min_speedup}"
        )
    return BELOW_FLOOR if below else 0


def _endpoint(
    recipe: Recipe, endpoint: EndpointConfig, *, as_json: bool, min_speedup: float | None
) -> int:
    """Without the target's weights there is no speed-up to predict: only whether it answers."""
    if min_speedup is not None:
        refuse_endpoint(endpoint, "check --min-speedup")
    pair = load_pair(recipe)
    found = served_target.try_out(pair, pair_prompts(pair))
    if as_json:
        say(json.dumps(found._asdict(), indent=2))
        return 0
    console = Terminal(soft_wrap=True)
    console.print(
        f"{endpoint.model} behind {endpoint.url} answers as {', '.join(found.makers) or 'nobody'}"
    )
    console.print(
        f"{found.seconds_per_answer:.2f} s and {found.tokens_per_answer:.0f} tokens an answer, one "
        f"at a time; {found.wanted:,} are wanted, {endpoint.concurrency} at a time: at best "
        f"{found.best_minutes:.1f} minutes"
    )
    for note in found.notes:
        console.print(note)
    for warning in found.warnings:
        console.print(Text.assemble(("warning:", "yellow"), " ", visible(warning)))
    console.print(served_target.UNMEASURED)
    return 0


def _print(
    recipe: Recipe,
    found: PairCheck,
    verdicts: list[EngineVerdict],
    head: ForeseenHead | None,
) -> None:
    console = Terminal()
    console.print(
        f"target {found.target_parameters / 1e6:,.1f} M parameters, draft "
        f"{found.draft_parameters / 1e6:,.1f} M; tokenizers {recipe.pair.tokenizers}, "
        f"{found.vocab_size:,} tokens "
        f"(outputs {found.target_vocabulary:,} and {found.draft_vocabulary:,}); chat template "
        f"{(found.chat_template or 'none')[:12]}; {found.runner} runner"
    )
    table = Table("", *(f"T = {e.temperature:g}" for e in found.expectations))
    for name, cells in _rows(found):
        table.add_row(name, *cells)
    console.print(table)
    memory = found.memory
    shared = f"; {_gib(memory.process)} of each is this process without models"
    console.print(
        f"memory, estimated: training about {_gib(memory.training())}, decoding about "
        f"{_gib(memory.decoding())}{shared if memory.process else ''}",
        soft_wrap=True,
    )
    for verdict in verdicts:
        mark = {True: "yes", False: "no", None: "?"}[verdict.takes]
        console.print(f"{verdict.engine:<13} {mark:<4} {verdict.why}", soft_wrap=True)
    if recipe.pair.tokenizers == "cross-tokenizer":
        console.print(
            "the engines were not asked: most want equal tokenizers, others bridge them by rules "
            "of their own"
        )
    if head is not None:
        console.print(
            f"the draft was measured with a head that scores {len(head.pair.kept or ()):,} of "
            f"{found.vocab_size:,} tokens (pair.draft_head), counted in {head.counted_in}; "
            "training counts them in all its stored responses",
            soft_wrap=True,
        )
    for warning in found.warnings:
        console.print(Text.assemble(("warning:", "yellow"), " ", visible(warning)), soft_wrap=True)


def _rows(found: PairCheck) -> list[tuple[str, list[str]]]:
    every = found.expectations
    return [
        ("alpha, undistilled draft", [number(e.alpha, ".3f") for e in every]),
        ("  its interval", [_bounds(e) for e in every]),
        ("entropy of the target, nats", [number(e.entropy_nats) for e in every]),
        ("target step, ms", [number(e.target_step_seconds * 1e3) for e in every]),
        ("c, draft step / target step", [number(e.draft_to_target_time, ".3f") for e in every]),
        (
            "v, target forward over gamma + 1 tokens",
            [" ".join(f"{g}:{number(v)}" for g, v in e.verify_times.items()) for e in every],
        ),
        (
            "break-even alpha",
            [f"{b:.3f}" if (b := e.break_even_alpha) is not None else "none" for e in every],
        ),
        (
            "cap of a perfect draft",
            [
                number(e.perfect_draft_cap, unit=f"x at gamma {e.perfect_draft_gamma}")
                for e in every
            ],
        ),
        (
            "predicted speed-up, undistilled",
            [number(e.predicted_speedup, unit=f"x at gamma {e.best_gamma}") for e in every],
        ),
    ]


def _bounds(found: Expectation) -> str:
    return interval(found.alpha_low, found.alpha_high, ".3f", " .. ", without=NO_INTERVAL)


def _resident_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
