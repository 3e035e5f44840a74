"""What a recipe would do: its paths are checked, and nothing heavy is loaded."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.recipe import builtin
from distillspec.recipe.capacity import check_memory, check_threads, llama_parameters, trained_bytes
from distillspec.recipe.context import check_rows_fit, context_of
from distillspec.recipe.data import ChatTopicsSource, CodeSource, HubSource, JsonlSource
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.endpoint import check_can_ask
from distillspec.recipe.loading import load_suite
from distillspec.recipe.made_draft import made_draft_line
from distillspec.recipe.model_line import (
    head_text,
    hub_or_missing,
    local_config,
    model_line,
    tokenizer_line,
)
from distillspec.recipe.output import RUNS, check_output, check_writable, output_folder
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.prompt_plan import AdversarialSource, PromptSource, PythonTopicsSource
from distillspec.recipe.schema import HardwareConfig, PairConfig, Recipe
from distillspec.recipe.start import LlamaShape
from distillspec.recipe.suite import Suite
from distillspec.recipe.target_logits import CachedTargetConfig
from distillspec.recipe.text_source import Origin, SourceShares
from distillspec.runtime.plain_files import check_regular

_REPOSITORY = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_OF_EVALUATIONS = ("target", "draft", "prompts", "held out", "evaluate")


class PlanLine(NamedTuple):
    """One thing that would happen: what it is about, and what."""

    about: str
    text: str


def plan(
    recipe: Recipe | PretrainRecipe,
    source: str,
    suite: Suite | None = None,
    drafts: Collection[str] | None = None,
) -> list[PlanLine]:
    """What `recipe` would do, in order.

    Args:
        recipe: What would be run.
        source: The recipe's file, for errors.
        suite: The one that it names, as the command line has changed it, if the recipe is only to
            be evaluated by that.
        drafts: Those that the run to be evaluated has; None: those that the recipe trains.

    Raises:
        DistillSpecError: A local path is missing, unusable or not writable.
    """
    if isinstance(recipe, PretrainRecipe):
        return _pretraining(recipe, source)
    if drafts is None:
        drafts = ("undistilled", "distilled", *(["control"] if recipe.evaluate.control else []))
    lines = _distillation(recipe, source, suite, drafts)
    return lines if suite is None else [line for line in lines if line.about in _OF_EVALUATIONS]


def render(lines: list[PlanLine]) -> str:
    """The plan as aligned text, one line a thing."""
    width = max(len(line.about) for line in lines)
    return "\n".join(f"{line.about:<{width}}  {line.text}" for line in lines)


def _distillation(
    recipe: Recipe, source: str, suite: Suite | None, drafts: Collection[str]
) -> list[PlanLine]:
    check_threads(recipe.hardware.threads, f"{source}: hardware.threads")
    runs = RUNS / recipe.name
    lines = [
        PlanLine("target", _target(recipe.pair, source)),
        PlanLine("draft", _draft(recipe, source)),
        *_text_lines(recipe, source),
        PlanLine("train", _training(recipe.distill)),
    ]
    _check_contexts(recipe, source)
    if recipe.distill.select is not None:
        where = f"{source}: distill.select.reference"
        lines.append(PlanLine("reference", model_line(recipe.distill.select.reference, where)))
    _check_wandb(recipe, source)
    check_writable(runs, f"{source}: name")
    return [
        *lines,
        PlanLine("run folder", f"{runs}/<run id>"),
        PlanLine("evaluate", _evaluation_of_run(recipe, suite, drafts)),
        PlanLine("export", _export(recipe, source)),
    ]


def _text_lines(recipe: Recipe, source: str) -> list[PlanLine]:
    """What the draft is trained and probed on, and what is stored of it."""
    data, distill = recipe.data, recipe.distill
    lines = [PlanLine("prompts", _prompts(data.source, f"{source}: data.source"))]
    if recipe.pair.draft_head is not None:
        draft = recipe.pair.draft if isinstance(recipe.pair.draft, str) else None
        where, counts = f"{source}: pair.draft_head", bool(distill.stored)
        text = head_text(draft, recipe.pair.draft_head.keep, where, counts_text=counts)
        lines.append(PlanLine("draft's head", text))
    held_out = f"{data.held_out_percent:g} % of the source, by a hash of each key"
    if data.held_out is not None:
        held_out = _prompts(data.held_out, f"{source}: data.held_out")
    lines += [PlanLine("held out", held_out), PlanLine("responses", _responses(distill))]
    if "target" in distill.stored or recipe.pair.endpoint is not None:
        store = Path(data.store)
        check_writable(store, f"{source}: data.store")
        bound = "" if data.max_prompts else "; data.max_prompts would bound them"
        text = f"one target response to each training prompt is kept in {store}{bound}"
        lines.append(PlanLine("store", text))
    if distill.cached_logits is not None:
        lines.append(PlanLine("target logits", _target_logits(distill.cached_logits, source)))
        if distill.cached_logits_caveat is not None:
            lines.append(PlanLine("note", distill.cached_logits_caveat))
    return lines


def _evaluation_of_run(recipe: Recipe, suite: Suite | None, drafts: Collection[str]) -> str:
    if recipe.pair.endpoint is not None:
        return "nothing: without the target's weights alpha, tau and speed-up are not known"
    path = recipe.evaluate.suite
    scored = (suite or load_suite(path)).scored_on(recipe.data.held_out_source)
    text = _evaluation(scored, path, drafts)
    if recipe.hardware.shard_target:
        return f"by one process that holds the target; several leave it out: {text}"
    return text


def _export(recipe: Recipe, source: str) -> str:
    push = recipe.export.push
    if push is not None and not _REPOSITORY.match(push):
        raise DistillSpecError(
            f"'{push}' is no name of a Hub repository",
            where=f"{source}: export.push",
            fix="give user/name: letters, digits, '-', '_' and '.'",
        )
    uploaded = f", uploaded to {push}" if push else ""
    return f"a Hugging Face folder draft/ in the run folder{uploaded}"


def _pretraining(recipe: PretrainRecipe, source: str) -> list[PlanLine]:
    check_threads(recipe.hardware.threads, f"{source}: hardware.threads")
    lines = [PlanLine("corpus", _prompts(recipe.corpus, f"{source}: corpus"))]
    tokenizer = recipe.tokenizer
    if tokenizer.take_from is not None:
        where = f"{source}: tokenizer.take_from"
        text = tokenizer_line(tokenizer.take_from, where)
    else:
        text = f"a new byte-level BPE of {tokenizer.vocab_size} tokens"
    if recipe.start_from is not None:
        model = f"goes on from {model_line(recipe.start_from, f'{source}: start_from')}"
    else:
        assert recipe.model is not None, "the schema asks for one of the two"
        known = local_config(tokenizer.take_from) if tokenizer.take_from else {}
        vocab_size = tokenizer.vocab_size or _whole(known or {}, "vocab_size")
        _check_size(recipe.model, vocab_size, recipe.hardware, f"{source}: model")
        model = f"Llama, {recipe.model.layers} layers, hidden size {recipe.model.hidden_size}"
    train = recipe.train
    check_output(recipe, RUNS / recipe.name, f"{source}: output")
    return [
        *lines,
        PlanLine("tokenizer", text),
        PlanLine("model", model),
        PlanLine(
            "train",
            f"{train.max_steps} steps of {train.batch_size} x {train.context} tokens,"
            f" validated every {train.validate_every_steps} steps",
        ),
        PlanLine("output", _output(output_folder(recipe))),
    ]


def _output(folder: Path) -> str:
    if not folder.exists() or not any(folder.iterdir()):
        return str(folder)
    return f"{folder}: the model that is there is replaced, its README.md is kept"


# --- what each part says, and whether its paths exist --------------------------------------------


def _target(pair: PairConfig, source: str) -> str:
    endpoint = pair.endpoint
    if endpoint is None:
        return model_line(pair.target_weights, f"{source}: pair.target", decodes=True)
    try:
        check_can_ask(endpoint)
    except DistillSpecError as error:
        doubt = f"; only stored answers can be used: {error.what} ({error.fix})"
    else:
        doubt = ""
    return (
        f"{endpoint.model} behind {endpoint.url}, asked for {endpoint.api}, "
        f"{endpoint.concurrency} at a time{doubt}"
    )


def _check_contexts(recipe: Recipe, source: str) -> None:
    """Whether both models can read the recipe's rows, as far as they lie here."""
    pair = recipe.pair
    names = [*([] if pair.endpoint else [pair.target_weights]), pair.draft]
    configs = (local_config(name) for name in names if isinstance(name, str))
    check_rows_fit(recipe, map(context_of, filter(None, configs)), source)


def _draft(recipe: Recipe, source: str) -> str:
    draft = recipe.pair.draft
    if isinstance(draft, str):
        return model_line(draft, f"{source}: pair.draft", decodes=True)
    return made_draft_line(recipe, draft, source)


def _check_size(shape: LlamaShape, vocab_size: int, hardware: HardwareConfig, where: str) -> None:
    check_memory(llama_parameters(shape, vocab_size), trained_bytes(hardware), where)


def _whole(config: dict[str, Any], key: str) -> int:
    """A size that config.json gives; 0 where it gives none."""
    value = config.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def _prompts(source: PromptSource, where: str) -> str:
    if isinstance(source, PythonTopicsSource):
        return "prose of Python's language reference"
    if isinstance(source, ChatTopicsSource):
        return f"built-in chats, {source.prompts_per_subject} questions about each subject"
    if isinstance(source, AdversarialSource):
        return f"made from the seed: {', '.join(source.shapes)}"
    if isinstance(source, JsonlSource | HubSource) and source.path is not None:
        fix = "correct the path; it is relative to the working folder"
        check_regular(Path(source.path), f"the data file '{source.path}'", fix)
        if not os.path.isfile(source.path):
            raise DistillSpecError(
                f"no such data file: '{source.path}'", where=f"{where}.path", fix=fix
            )
        if not os.access(source.path, os.R_OK):
            raise DistillSpecError(
                f"the data file '{source.path}' cannot be read: Permission denied",
                where=f"{where}.path",
                fix="change its permissions",
            )
        return f"rows of {source.path}"
    if isinstance(source, HubSource):
        if os.path.exists(source.dataset):
            return f"rows of the local data set {source.dataset}"
        if source.files:
            return f"rows of {', '.join(source.files)}, read as {source.dataset}"
        return hub_or_missing(source.dataset, "data set", f"{where}.dataset")
    return _code(source, where)


def _code(source: CodeSource, where: str) -> str:
    for package in source.packages:
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            raise DistillSpecError(
                f"the package '{package}' is not installed",
                where=f"{where}.packages",
                fix=f"install it, or take it out of the list: pip install {package}",
            )
    return f"{source.in_words} ({', '.join(source.include)})"


def _responses(distill: DistillConfig) -> str:
    # Phases with the same source are one line.
    return "; then ".join(dict.fromkeys(_shares(phase.source) for phase in distill.phases))


def _shares(shares: SourceShares) -> str:
    words: dict[Origin, str] = {
        "fixed": "the data's own",
        "target": "sampled from the target once",
        "draft": "sampled from the draft's current weights",
        "speculative": "sampled from the target now, by speculative decoding with the draft",
        "replay": "of earlier steps",
    }
    if shares.per == "token":
        return f"{shares.draft:.0%} of the tokens the draft's, {shares.target:.0%} the target's"
    found = ", ".join(f"{share:.0%} {words[origin]}" for origin, share in shares.of.items())
    return found + (" (entire batches)" if shares.per == "batch" else "")


def _training(distill: DistillConfig) -> str:
    limit = f" or {distill.max_minutes:g} minutes" if distill.max_minutes else ""
    return (
        f"{distill.loss_in_words}, {distill.max_steps} steps{limit},"
        f" {distill.batch_size} sequences each, temperature {distill.temperature:g}"
    )


def _target_logits(signal: CachedTargetConfig, source: str) -> str:
    check_writable(Path(signal.store), f"{source}: distill.target_logits.store")
    small, large = (signal.bytes_per_token(size) for size in (2**16, 2**16 + 1))
    return (
        f"the target's {signal.k} most probable tokens and the mass of the rest are kept in"
        f" {signal.store}, {small} bytes for each predicted token ({large} from a vocabulary of"
        " 65,537 on)"
    )


def _evaluation(suite: Suite, path: str, drafts: Collection[str]) -> str:
    if suite.quality is not None and not os.path.exists(builtin.find("metric", suite.quality)):
        raise DistillSpecError(
            f"no such metric: '{suite.quality}'",
            where=f"{path}: quality",
            fix=builtin.hint("metric", suite.quality),
        )
    for method in suite.methods:
        if method.parallel is not None:
            check_threads(method.parallel.threads, f"{path}: {method.name}: parallel.threads")
    brought = [_prompts(prompts, f"{path}: {key}") for key, prompts in suite.prompts.named.items()]
    scored = "" if suite.quality is None else f", scored by {suite.quality}"
    measured = [name for name in suite.measured_drafts() if name in drafts]
    return (
        f"{path}: {suite.cells_in_words()}; at temperature {list(suite.temperatures)},"
        f" {suite.prompts.count} prompts (alpha on {suite.prompts.read})"
        f"{''.join(f', {text}' for text in brought)},"
        f" drafts: {', '.join(measured) or 'none'}{scored}"
    )


def _check_wandb(recipe: Recipe, source: str) -> None:
    if recipe.hardware.wandb_project is not None and importlib.util.find_spec("wandb") is None:
        raise DistillSpecError(
            "the package 'wandb' is not installed",
            where=f"{source}: hardware.wandb_project",
            fix="pip install wandb, or leave the key out",
        )
