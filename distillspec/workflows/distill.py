"""The verbs `run` and `train`: the distilled draft, its control, then export and evaluation."""

from __future__ import annotations

import gc
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from distillspec.assembly.identity import check_identity, responses_identity
from distillspec.assembly.pair import ModelPair
from distillspec.assembly.text import preview_batch, reachable_mass
from distillspec.assembly.training import TrainingText, bucket_steps, control_recipe, train_draft
from distillspec.assembly.trimmed_head import kept_tokens
from distillspec.corpus.batches.preview import show
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.recipe.schema import Recipe
from distillspec.recipe.words import plan_in_words
from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.processes import leave
from distillspec.text.numbers import known
from distillspec.training.fit import FitOutcome
from distillspec.training.resume import LAST
from distillspec.workflows.evaluate import evaluate_run
from distillspec.workflows.export import export_run, push_draft
from distillspec.workflows.run import Run, console, read_head, started
from distillspec.workflows.run_folder import RunFolder

_TRIALS_PER_TRAINING = 3  # one trial of a learning rate takes this part of a training's time


class _ChosenRate(NamedTuple):
    """The learning rate of the control, and the highest alpha at each that was tried."""

    learning_rate: float
    alphas: dict[str, float | None]


def run(recipe: Recipe, folder: Path | None) -> int:
    """Train, export and evaluate, and push if the recipe asks for it.

    If this process cannot decode with the target, nothing is evaluated, and the last lines name
    the next step.

    Args:
        recipe: Of the run.
        folder: A run folder to resume; None begins a new one.
    """
    with started(recipe, folder, "run") as at_work:
        train_drafts(at_work)
        if at_work.world.rank:
            return 0
        export_run(at_work)
        if at_work.target.evaluates:
            evaluate_run(at_work, recipe.evaluate.suite)
        at_work.close()
        if recipe.export.push is not None:
            push_draft(at_work, recipe.export.push)
    return 0


def train(recipe: Recipe, folder: Path | None) -> int:
    """Train and export, without evaluation."""
    trained(recipe, folder)
    return 0


def trained(recipe: Recipe, folder: Path | None) -> RunFolder:
    """Train and export; returns the run folder."""
    with started(recipe, folder, "train") as at_work:
        train_drafts(at_work)
        if not at_work.world.rank:
            export_run(at_work)
            at_work.close()
    return at_work.folder


def train_drafts(run: Run) -> None:
    """Train the distilled draft, then its control; each resumes from its last checkpoint."""
    recipe = run.recipe
    # Called for its check, before the target works for hours.
    bucket_steps(recipe.distill, len(run.prompts.training))
    run.say(*_small_data_notes(run))
    # 1. The target writes the stored text, in which the tokens of a trimmed head are counted.
    text = run.target.training_text(run.pair, run.prompts, run.world, lambda x: _settled(run, x))
    run.say(*text.notes)
    _show_preview(run, text)
    _say_shared_tokens(run)
    if text.cached is not None and run.world.rank and not recipe.distill.needs_target:
        run.pair.target.release()  # rank 0 keeps its target for probe, export and evaluation
    # 2. The distilled draft.
    distilled = _fit(run, recipe, run.folder.path, "distilled", text)
    cost = {"text_seconds": text.seconds / run.world.size, "processes": run.world.size}
    outcomes = {"distilled": {**distilled.record(), **cost}}
    # 3. The control trains for as long, by next-token loss. Caching logits is a part of distilling.
    # The seconds of stores are sums over processes, which worked at the same time.
    caching = 0.0 if text.cached is None else text.cached.store.seconds / run.world.size
    control = control_recipe(recipe, (distilled.seconds + caching) / 60.0)
    if recipe.evaluate.control and _has_text_for(run, control):
        control = _at_best_rate(run, control, text)
        outcomes["control"] = _fit(run, control, run.folder.control, "control", text).record()
    if not run.world.rank:
        # After the control, whose steps all processes share: none of them reads the trials now.
        shutil.rmtree(run.folder.control_rates, ignore_errors=True)
        atomic.write_json(run.folder.training_file, outcomes)
    # 4. The other processes end, so that what follows has the entire machine.
    if run.pair.is_split:
        del text  # holds the probe, which holds the target
        run.pair.target.leave_processes()
    leave(run.world)
    if run.world.size > 1 and not run.world.rank:
        torch.set_num_threads(recipe.hardware.threads or len(os.sched_getaffinity(0)))


def _show_preview(run: Run, text: TrainingText) -> None:
    rows = preview_batch(run.pair, text.training, text.responses)
    if rows is not None and not run.world.rank:
        show(rows, run.pair.tokenizer, console)


def _small_data_notes(run: Run) -> list[str]:
    """Notes if probe or batch need more prompts than the data has."""
    notes, training = [], len(run.prompts.training)
    asked, available = run.recipe.distill.probe.prompts, len(run.prompts.held_out)
    if available < asked:
        notes.append(
            f"{available} held-out prompts for a probe of {asked}: with few prompts the choice "
            "of the best step depends on chance (data.held_out, data.held_out_percent)"
        )
    batch = run.recipe.distill.batch_size
    if batch > training:
        notes.append(
            f"a step has {batch:,} sequences, and the data has {training:,} training prompts: a "
            "step takes a prompt several times (distill.batch_size)"
        )
    return notes


def _settled(run: Run, responses: dict[str, Tokens] | None) -> ModelPair:
    """Check the responses that the run trains on, and choose the trimmed head by them."""
    if responses is not None and not run.world.rank:
        # A resumed run trains on the responses that it was started with.
        identity = responses_identity(responses, f"data.store: {run.recipe.data.store}")
        check_identity(run.folder.identity_file, identity, has_trained=False)
    if run.pair.frozen is not None:
        _choose_head(run, responses)
    return run.pair


def _choose_head(run: Run, responses: dict[str, Tokens] | None) -> None:
    """Choose the tokens of a trimmed head once per run, and print what it cannot reach."""
    plan, path = run.recipe.pair.draft_head, run.folder.head_file
    if plan is None:
        return
    # A resumed run has read its head from the file already (`started`).
    if run.pair.kept is None:
        counted = kept_tokens(run.pair, run.prompts.training, responses, plan.keep)
        run.pair = run.pair.trimmed_to(counted.tokens)
        if not run.world.rank:
            mass = reachable_mass(run.pair, run.prompts.held_out)
            atomic.write_json(path, {**counted._asdict(), "mass": mass})
    if not run.world.rank:
        head = read_head(path, run.pair.vocab_size)
        # Tokens that the draft's folder names need no text that they are counted in.
        share = f"{head.share:.2%} of the text they were counted in, and " if head.share else ""
        run.say(
            f"the draft's head keeps {len(head.tokens):,} of {run.pair.vocab_size:,} tokens: "
            f"{share}{head.mass:.2%} of the target's mass on held-out text, which alpha cannot "
            "exceed"
        )


def _say_shared_tokens(run: Run) -> None:
    shared = run.pair.token_map
    if shared is None or run.world.rank:
        return
    mass = reachable_mass(run.pair, run.prompts.held_out)
    run.say(
        f"draft and target have different tokenizers: {len(shared.target_ids):,} of the target's "
        f"{run.pair.vocab_size:,} tokens are in both. They have {mass:.2%} of its mass on held-out "
        f"text, which alpha cannot exceed; {1.0 - mass:.2%} is lost"
    )


def _has_text_for(run: Run, control: Recipe) -> bool:
    refusal = run.target.control_refusal()
    lacks = any(prompt.response is None for prompt in run.prompts.training)
    if refusal is None and control.distill.source.fixed and lacks:
        refusal = "no control: the data has no responses to train it on"
    if refusal is not None:
        run.say(refusal)
    return refusal is None


def _at_best_rate(run: Run, control: Recipe, text: TrainingText) -> Recipe:
    """The control at the learning rate that does best on the probe's text, in short trainings."""
    factors, path = run.recipe.evaluate.control_rates, run.folder.control_rate_file
    rates = [factor * control.optimizer.learning_rate for factor in factors]
    if len(rates) == 1:
        return _at_rate(control, rates[0])
    if (run.folder.control / LAST).exists() and not path.exists():
        return control  # a run of version 0.2, which tried no rates
    if path.exists():
        # A resumed run has chosen already. Every process sees so before any of them can write.
        fix = "delete the file: the rate is then chosen again"
        chosen = read_json(BoundedText(path, "the control's learning rate", fix), _ChosenRate)
    else:
        chosen = _chosen_rate(run, control, text, rates)
        if not run.world.rank:
            atomic.write_json(path, chosen._asdict())
    tried = ", ".join(f"{known(alpha, '.4f')} at {rate}" for rate, alpha in chosen.alphas.items())
    run.say(f"the control's learning rate is {chosen.learning_rate:g} (alpha {tried})")
    return _at_rate(control, chosen.learning_rate)


def _chosen_rate(
    run: Run, control: Recipe, text: TrainingText, rates: Sequence[float]
) -> _ChosenRate:
    minutes = control.distill.max_minutes
    assert minutes is not None, "only the minutes end the training of a control"
    distill = control.distill.model_copy(update={"max_minutes": minutes / _TRIALS_PER_TRAINING})
    trial, alphas = control.model_copy(update={"distill": distill}), dict[str, float | None]()
    for rate in rates:
        folder = run.folder.control_rates / f"{rate:g}"
        outcome = _fit(run, _at_rate(trial, rate), folder, f"control at rate {rate:g}", text)
        alphas[f"{rate:g}"] = None if math.isnan(outcome.best_alpha) else outcome.best_alpha
    return _ChosenRate(best_rate(alphas, control.optimizer.learning_rate), alphas)


def best_rate(alphas: Mapping[str, float | None], usual: float) -> float:
    """The rate with the highest alpha; of equals the one nearest to the usual rate.

    All are equal where no rate improves on the draft before training.
    """

    def rank(rate: str) -> tuple[float, float]:
        alpha = alphas[rate]
        return (-math.inf if alpha is None else alpha, -abs(math.log(float(rate) / usual)))

    return float(max(alphas, key=rank))


def _at_rate(recipe: Recipe, rate: float) -> Recipe:
    optimizer = recipe.optimizer.model_copy(update={"learning_rate": rate})
    return recipe.model_copy(update={"optimizer": optimizer})


def _fit(run: Run, recipe: Recipe, folder: Path, label: str, text: TrainingText) -> FitOutcome:
    run.say(f"training the draft '{label}': {plan_in_words(recipe)}")
    outcome = train_draft(
        run.pair,
        recipe,
        text,
        folder,
        label,
        on_checkpoint=lambda tokens: run.record(run.tokens + tokens),
    )
    # A resumed training counts from its beginning; this start adds only its part.
    run.tokens += outcome.response_tokens - outcome.tokens_before
    run.record()
    run.say(
        f"{label}: {outcome.steps} steps, {outcome.response_tokens:,} tokens in the loss, "
        f"{outcome.seconds:.0f} s; {outcome.best()}"
    )
    gc.collect()
    return outcome
