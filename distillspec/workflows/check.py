"""The verb `check`: what a pair can gain on this machine, predicted before any training."""

from __future__ import annotations

import json
import resource
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from distillspec.assembly.pair import ModelPair, dtype_of, load_pair, prepare_process
from distillspec.assembly.served_target import UNMEASURED, EndpointTrial
from distillspec.assembly.target import target_of
from distillspec.assembly.text import pair_prompts
from distillspec.assembly.training import bucket_steps
from distillspec.assembly.trimmed_head import ForeseenHead, foreseen_head
from distillspec.corpus.sources.prompts import PromptSets
from distillspec.export.engines import EngineVerdict, engine_verdicts
from distillspec.measure.pair_check import Expectation, PairCheck, assess
from distillspec.measure.summary.file import without_nan
from distillspec.measure.timed.memory import TrainingLoad, weight_bytes
from distillspec.models.loading.model_facts import folder_facts
from distillspec.models.loading.precision import cast_parameters
from distillspec.models.surgery.made_draft import made_draft_facts
from distillspec.recipe.endpoint import refuse_endpoint
from distillspec.recipe.loading import load_suite
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Suite
from distillspec.runtime.terminal import Terminal
from distillspec.text.foreign import say, visible
from distillspec.text.numbers import NO_INTERVAL, interval, known, number

BELOW_FLOOR = 2  # exit code


def run(recipe: Recipe, *, as_json: bool, min_speedup: float | None) -> int:
    """Print what a pair can gain, or whether an endpoint answers.

    Args:
        recipe: Names the pair.
        as_json: Whether to print JSON in place of tables.
        min_speedup: The floor of the predicted speed-up; None sets no floor.

    Returns:
        0, or BELOW_FLOOR if the prediction is below the floor.

    Raises:
        DistillSpecError: The pair or its data cannot be used, or an endpoint shall predict a
            speed-up.
    """
    prepare_process(recipe)
    if min_speedup is not None:
        refuse_endpoint(recipe.pair.endpoint, "check --min-speedup")
    # Before the models, so that its errors come early. An endpoint is not decoded with.
    suite = None if recipe.pair.endpoint is not None else load_suite(recipe.evaluate.suite)
    # 1. Load the pair and its prompts. An endpoint only gets a few trial requests.
    pair = load_pair(recipe)
    sets = pair_prompts(pair)
    trial = target_of(pair, Terminal(stderr=True)).try_out(pair, sets)
    if trial is not None:
        _print_trial(recipe, trial, as_json=as_json)
        return 0
    assert suite is not None
    bucket_steps(recipe.distill, len(sets.training))  # called for its check, as before training
    # Mapped weights that were not read yet are not resident.
    process_bytes = max(0, _resident_bytes() - weight_bytes(pair.target.model))
    # 2. Which engines take the pair, and what it can gain.
    verdicts = _engine_verdicts(pair)
    head = foreseen_head(pair, sets.training)
    fitness = _assessed(pair if head is None else head.pair, sets, suite, process_bytes)
    # 3. Print it, and compare it with the floor.
    if as_json:
        say(json.dumps(without_nan(_as_json(fitness, verdicts, head)), indent=2))
    else:
        _print(recipe, fitness, verdicts, head)
    speedup = fitness.predicted_speedup()
    if min_speedup is None or speedup >= min_speedup:
        return 0
    if not as_json:
        Terminal().print(f"predicted speed-up {known(speedup)} is below the floor {min_speedup}")
    return BELOW_FLOOR


def _engine_verdicts(pair: ModelPair) -> list[EngineVerdict]:
    """Which serving engines take the pair; empty if the tokenizers differ."""
    plan = pair.recipe.pair
    of_target = folder_facts(plan.target_weights, "target")
    of_draft = folder_facts(plan.draft, "draft") if isinstance(plan.draft, str) else None
    # The rules of engines assume equal tokenizers.
    if pair.token_map is not None:
        return []
    return engine_verdicts(of_target, of_draft or made_draft_facts(pair.draft()))


def _assessed(pair: ModelPair, sets: PromptSets, suite: Suite, process_bytes: int) -> PairCheck:
    """Measure the pair on held-out prompts, as the suite decodes.

    Args:
        pair: With the head that training will probably keep.
        sets: Training and held-out prompts.
        suite: Of the recipe.
        process_bytes: Memory of this process with its data, without the target.
    """
    device = pair.device
    # Before the cast, which may need more memory than training.
    load = _training_load(pair, process_bytes)
    dtype = dtype_of(suite.runner.dtype, device)
    # In the suite's dtype, because c and v depend on it.
    cast_parameters(pair.target.model, dtype)
    # stdout may receive JSON, so progress goes to stderr.
    with Terminal(stderr=True).status("measuring the pair") as status:
        return assess(
            pair.target.model,
            pair.draft(dtype),
            pair.tokenizer,
            sets.held_out,
            suite=suite,
            load=load,
            device=device,
            vocab_size=pair.vocab_size,
            ends=pair.eos_token_ids,
            progress=status.update,
        )


def _training_load(pair: ModelPair, process_bytes: int) -> TrainingLoad:
    """What one process holds while it trains by the recipe."""
    recipe, device = pair.recipe, pair.device
    plan, data = recipe.distill, recipe.data
    adapters = None
    if recipe.lora is not None:
        trained = pair.trainable_draft().parameters()
        adapters = sum(weight.numel() for weight in trained if weight.requires_grad)
    scored, sequences = pair.vocabulary.scored, plan.micro_batch_size or plan.batch_size
    return TrainingLoad(
        sequences=sequences,
        tokens_per_sequence=data.max_prompt_tokens + data.max_response_tokens,
        chunk_tokens=plan.chunk_tokens,
        scored_tokens=None if scored is None else len(scored),
        reads_target=plan.needs_target,
        accumulates=sequences < plan.batch_size,
        recomputes=recipe.hardware.gradient_checkpointing,
        trainable_parameters=adapters,
        itemsize=dtype_of(recipe.hardware.precision, device).itemsize,
        # On a GPU, the models are not in the memory of the process.
        process=process_bytes if device.type == "cpu" else 0,
    )


def _as_json(
    fitness: PairCheck, verdicts: list[EngineVerdict], head: ForeseenHead | None
) -> dict[str, Any]:
    values = {**asdict(fitness), "predicted_speedup": fitness.predicted_speedup()}
    if head is not None:
        values["draft_head"] = {
            "keep": len(head.pair.kept or ()),
            "counted_in": head.counted_in,
        }
    values["engines"] = [verdict._asdict() for verdict in verdicts]
    return values


def _print_trial(recipe: Recipe, trial: EndpointTrial, *, as_json: bool) -> None:
    """An endpoint gives no distribution, so there is no speed-up to predict."""
    if as_json:
        say(json.dumps(trial._asdict(), indent=2))
        return
    endpoint = recipe.pair.endpoint
    assert endpoint is not None, "only endpoints are tried out"
    console = Terminal(soft_wrap=True)
    makers = ", ".join(trial.makers) or "an unnamed model"
    console.print(f"{endpoint.model} behind {endpoint.url} answers as {makers}")
    console.print(
        f"{trial.seconds_per_answer:.2f} s and {trial.tokens_per_answer:.0f} tokens per answer, "
        f"one request at a time; training needs {trial.wanted:,} answers, "
        f"{endpoint.concurrency} at a time: at least {trial.best_minutes:.1f} minutes"
    )
    for note in trial.notes:
        console.print(note)
    for warning in trial.warnings:
        console.print(Text.assemble(("warning:", "yellow"), " ", visible(warning)))
    console.print(UNMEASURED)


def _print(
    recipe: Recipe,
    fitness: PairCheck,
    verdicts: list[EngineVerdict],
    head: ForeseenHead | None,
) -> None:
    console = Terminal()
    console.print(
        f"target {fitness.target_parameters / 1e6:,.1f} M parameters, draft "
        f"{fitness.draft_parameters / 1e6:,.1f} M; tokenizers {recipe.pair.tokenizers}, "
        f"{fitness.vocab_size:,} tokens "
        f"(outputs {fitness.target_vocabulary:,} and {fitness.draft_vocabulary:,}); chat template "
        f"{(fitness.chat_template or 'none')[:12]}; {fitness.runner} runner"
    )
    table = Table("", *(f"T = {e.temperature:g}" for e in fitness.expectations))
    for name, cells in _rows(fitness, None if head is None else len(head.pair.kept or ())):
        table.add_row(name, *cells)
    console.print(table)
    memory = fitness.memory
    shared = f"; {_gib(memory.process)} of each is this process and its data, without models"
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
            "engines are not listed: most of them need equal tokenizers, and the others translate "
            "by different rules"
        )
    if head is not None:
        console.print(
            f"the draft was measured with a head that scores {len(head.pair.kept or ()):,} of "
            f"{fitness.vocab_size:,} tokens (pair.draft_head), counted in {head.counted_in}; "
            "training counts them in all its stored responses",
            soft_wrap=True,
        )
    for warning in fitness.warnings:
        console.print(Text.assemble(("warning:", "yellow"), " ", visible(warning)), soft_wrap=True)


def _rows(fitness: PairCheck, kept: int | None) -> list[tuple[str, list[str]]]:
    """The table. Every number is of the draft with its trimmed head, if it has one.

    Args:
        fitness: What was measured.
        kept: Tokens of a trimmed head; None without one.
    """
    expectations = fitness.expectations
    head = (
        [] if kept is None else [("tokens in the draft's head", [f"{kept:,}"] * len(expectations))]
    )
    bounds = [number(e.highest_alpha, ".3f") for e in expectations]
    is_bounded = any(e.highest_alpha < 1.0 for e in expectations)
    return [
        *head,
        ("alpha, undistilled draft", [number(e.alpha, ".3f") for e in expectations]),
        ("  its interval", [_bounds(e) for e in expectations]),
        *([("highest alpha, target's mass on the draft's tokens", bounds)] if is_bounded else []),
        ("entropy of the target, nats", [number(e.entropy_nats) for e in expectations]),
        ("target step, ms", [number(e.target_step_seconds * 1e3) for e in expectations]),
        (
            "c, draft step / target step",
            [number(e.draft_to_target_time, ".3f") for e in expectations],
        ),
        (
            "v, target forward over gamma + 1 tokens",
            [" ".join(f"{g}:{number(v)}" for g, v in e.verify_times.items()) for e in expectations],
        ),
        (
            "break-even alpha",
            [f"{b:.3f}" if (b := e.break_even_alpha) is not None else "none" for e in expectations],
        ),
        (
            "cap of a perfect draft",
            [
                number(e.perfect_draft_cap, unit=f"x at gamma {e.perfect_draft_gamma}")
                for e in expectations
            ],
        ),
        (
            "predicted speed-up, undistilled",
            [number(e.predicted_speedup, unit=f"x at gamma {e.best_gamma}") for e in expectations],
        ),
    ]


def _bounds(expectation: Expectation) -> str:
    return interval(
        expectation.alpha_low, expectation.alpha_high, ".3f", " .. ", without=NO_INTERVAL
    )


def _resident_bytes() -> int:
    """The memory of this process now; where the system does not tell, the most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return pages * resource.getpagesize()


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
