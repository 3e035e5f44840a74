"""Make the summary of an evaluation from its rows and the target's texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from distillspec.measure.exact.prompt import MeasuredPrompt
from distillspec.measure.exact.target_texts import TextFacts, drawn_texts, text_facts
from distillspec.measure.summary.comparing import comparisons
from distillspec.measure.summary.completions import completion_text, examples, greedy_divergences
from distillspec.measure.summary.definitions import DEFINITIONS
from distillspec.measure.summary.findings import findings, served_cautions
from distillspec.measure.summary.noise_floor import in_words, noise_floor
from distillspec.measure.summary.oracle import oracles
from distillspec.measure.summary.quality import Completion, name_of, score
from distillspec.measure.summary.ranking import ranking
from distillspec.measure.summary.recommending import recommendations, recommended
from distillspec.measure.summary.records import DraftComparison, Quality, Summary
from distillspec.measure.summary.regret import Arm, regrets
from distillspec.measure.summary.tally import Tally
from distillspec.measure.timed.plan import Prepared
from distillspec.measure.timed.rows import CellRow
from distillspec.models.runners.eager import CausalRunner
from distillspec.models.runners.tree_batch import BatchedTreeRunner, EncoderDecoderRunner
from distillspec.recipe.choosing import UCBConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime import provenance
from distillspec.speculation.limits import up_to_end
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_COMPARED = "distilled"
_PLAIN_NAME = "target alone"
_MIXED = "Ratios of a compiled and an eager model do not predict a serving engine."


def sum_up(
    suite: Suite,
    rows: Sequence[CellRow],
    prepared: Prepared,
    *,
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[MeasuredPrompt],
    text_prompts: Sequence[MeasuredPrompt],
    vocab_size: int | None,
    ends: frozenset[int],
    notes: Sequence[str] = (),
) -> Summary:
    """The summary of an evaluation.

    Args:
        suite: What was measured.
        rows: All rows of the evaluation.
        prepared: Step times and runners.
        target, drafts: The models.
        tokenizer: The pair's tokenizer.
        prompts: The decoded prompts.
        text_prompts: The prompts of the target's texts, for alpha and expected tau.
        vocab_size: Tokens that all models share.
        ends: Ids of tokens that end a text.
        notes: Sentences about the prompts, which come last.
    """
    # 1. The noise floor. All other numbers leave its second timing out.
    floor = noise_floor(rows, suite.confidence)
    rows = [row for row in rows if not row.again]
    runs = sorted({row.run for row in rows})
    # 2. Acceptance on texts of the target, then the sums of each cell.
    facts = _facts(suite, target, drafts, text_prompts, ends, vocab_size)
    standard = frozenset(method.name for method in suite.methods if method.is_standard)
    tally = Tally(rows, prepared.steps, facts, suite.confidence, ends, standard)
    cells, baseline, ranked = tally.cells(), tally.baselines(), ranking(tally)
    compared = _compared(tally, drafts)
    recommendation = recommendations(tally)
    divergences = greedy_divergences(target, prompts, rows, vocab_size)
    # 3. Sentences that are both notes and cautions.
    floor_words = [] if floor is None else [in_words(floor)]
    of_run = [*floor_words, *_processes(len(runs)), *_fallbacks(suite, prepared)]
    always = [*_audited(suite), *notes]
    documents = tally.documents()
    return Summary(
        suite=suite.name,
        created=provenance.gather().started,
        prompts=len(prompts),
        texts=len(text_prompts),
        max_new_tokens=suite.max_new_tokens,
        confidence=suite.confidence,
        standard_methods=sorted(standard),
        cells=cells,
        baseline=baseline,
        comparisons=compared,
        ranking=ranked,
        oracles=oracles(tally, ranked),
        regrets=regrets(rows, _choosers(suite), suite.confidence),
        categories=tally.categories(),
        contexts=tally.contexts(),
        recommendation=recommendation,
        quality=_quality(suite, tokenizer, prompts, rows, ends),
        greedy_divergences=divergences,
        examples=examples(tokenizer, prompts, rows, recommended(tally, _shown(tally))),
        notes=[
            *findings(cells, baseline, compared, recommendation, divergences, documents),
            *of_run,
            *_forgotten(suite, len(runs)),
            *_lossy(suite),
            *always,
        ],
        cautions=[
            *served_cautions(cells, baseline, divergences, documents, standard),
            *of_run,
            *always,
        ],
        environment=_environment(suite, target, drafts, prepared, runs),
        definitions=dict(DEFINITIONS),
        documents=documents,
        text_documents=len({prompt.document for prompt in text_prompts}),
        noise_floor=floor,
    )


def _compared(tally: Tally, drafts: Mapping[str, PreTrainedModel]) -> list[DraftComparison]:
    """The distilled draft against every other; empty without a distilled draft."""
    if _COMPARED not in drafts:
        return []
    others = [name for name in drafts if name != _COMPARED]
    return comparisons(tally, _COMPARED, others, recommended(tally, _COMPARED))


def _shown(tally: Tally) -> str:
    """The draft of the examples: the distilled one, or the last that was measured."""
    measured = [key.draft for key in tally.cell_keys()]
    return _COMPARED if _COMPARED in measured else measured[-1]


def _facts(
    suite: Suite,
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    prompts: Sequence[MeasuredPrompt],
    ends: frozenset[int],
    vocab_size: int | None,
) -> dict[float, TextFacts]:
    """By temperature: the acceptance of every draft on new texts of the target."""
    documents = [prompt.document for prompt in prompts]
    facts = {}
    for temperature in suite.temperatures:
        policy = SamplingPolicy(temperature, suite.top_k, suite.nucleus)
        texts = drawn_texts(
            target,
            prompts,
            policy,
            tokens=suite.max_new_tokens,
            seed=suite.seed,
            vocab_size=vocab_size,
        )
        facts[temperature] = text_facts(
            target, drafts, texts, policy, documents=documents, ends=ends, vocab_size=vocab_size
        )
    return facts


def _quality(
    suite: Suite,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[MeasuredPrompt],
    rows: Sequence[CellRow],
    ends: frozenset[int],
) -> list[Quality]:
    """The metric on completions of the target alone and on those decoded with each draft.

    Speculative decoding is lossless, so these agree up to the noise of sampling. Lossy methods,
    which are listed separately, may differ.
    """
    if suite.quality is None:
        return []
    groups: dict[tuple[float, str], list[Completion]] = {}
    lossy = suite.lossy_methods()
    for row in rows:
        prompt = prompts[row.prompt]
        tokens = up_to_end(row.tokens, ends)[0]
        reference = prompt.response
        name = row.draft or _PLAIN_NAME
        if row.method in lossy:
            name = f"{name}, {row.method}"
        groups.setdefault((row.temperature, name), []).append(
            Completion(
                prompt=prompt.text,
                text=completion_text(tokenizer, prompt.tokens, tokens),
                finished=bool(tokens) and tokens[-1] in ends,
                # Cut like the completion, which cannot be longer.
                reference=None
                if reference is None
                else completion_text(tokenizer, prompt.tokens, reference[: suite.max_new_tokens]),
            )
        )
    return [
        Quality(
            completions_of=name,
            temperature=temperature,
            metric=name_of(suite.quality),
            completions=len(completions),
            scores=score(suite.quality, completions),
        )
        # The target alone comes first at each temperature.
        for (temperature, name), completions in sorted(
            groups.items(), key=lambda item: (item[0][0], item[0][1] != _PLAIN_NAME)
        )
    ]


def _fallbacks(suite: Suite, prepared: Prepared) -> list[str]:
    """Notes about models that run eagerly, or with several drafts as a batch."""
    eager = _run_by(CausalRunner, prepared) if suite.runner.kind == "compiled" else ""
    as_a_batch = _run_by(BatchedTreeRunner, prepared)
    with_source = _run_by(EncoderDecoderRunner, prepared)
    notes = []
    if with_source:
        notes.append(
            f"Encoder-decoder models ran eagerly, and several drafts as a batch: {with_source}."
        )
    if eager:
        notes.append(f"These models could not be compiled and ran eagerly: {eager}.")
    if as_a_batch:
        notes.append(
            "These models accept no tree mask, so several drafts ran eagerly as a batch: "
            f"{as_a_batch}."
        )
    # Compiled was asked for, so compiled and eager models may be mixed.
    if notes and suite.runner.kind == "compiled":
        notes[-1] += f" {_MIXED}"
    return notes


def _processes(runs: int) -> list[str]:
    if runs == 1:
        return []
    return [
        f"{runs} processes timed these rows (the evaluation was interrupted). Every block of "
        "comparisons comes from one process."
    ]


def _forgotten(suite: Suite, processes: int) -> list[str]:
    """A note about methods that lost their state when the evaluation was interrupted."""
    forgot = [
        method.name
        for method in suite.methods
        if method.fallback
        or (
            isinstance(method.choose, UCBConfig)
            and method.choose.window
            # Memory per prompt loses nothing: each prompt starts empty.
            and method.choose.memory != "prompt"
        )
    ]
    if processes == 1 or not forgot:
        return []
    return [
        f"Windows and fallbacks started empty in each of {processes} processes: "
        f"{', '.join(forgot)}. "
        "They keep their state in an evaluation without interruption."
    ]


def _run_by(runner: type[Runner], prepared: Prepared) -> str:
    return ", ".join(name for name, kind in prepared.runners.items() if kind == runner.__name__)


def _choosers(suite: Suite) -> dict[str, list[Arm]]:
    """The methods that choose, with their arms."""
    return {
        method.name: [Arm(arm.name, gamma, arm.model) for arm, gamma in suite.arms(method)]
        for method in suite.methods
        if method.choose is not None
    }


def _lossy(suite: Suite) -> list[str]:
    names = suite.lossy_methods()
    if not names:
        return []
    return [
        f"LOSSY: {', '.join(names)}. Their output does not follow the target's distribution. See "
        "their task quality, not only their speed."
    ]


def _audited(suite: Suite) -> list[str]:
    if not suite.audit:
        return []
    return [
        "Every round was audited, and the times of speculative decoding include the audit. "
        "Remove `audit` from the suite to compare speeds."
    ]


def _environment(
    suite: Suite,
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    prepared: Prepared,
    runs: Sequence[str],
) -> dict[str, Any]:
    now = provenance.gather()
    return {
        "command": list(now.command),
        "git": asdict(now.git),
        "python": now.python,
        "versions": now.versions,
        "machine": asdict(now.machine),
        "threads": torch.get_num_threads(),
        "runner": suite.runner.kind,
        "runners": prepared.runners,
        "seed": suite.seed,
        "repeats": suite.repeats,
        "processes": list(runs),
        "models": {
            name: {
                "path": model.name_or_path,
                "parameters": sum(weight.numel() for weight in model.parameters()),
                "dtype": str(model.dtype).removeprefix("torch."),
            }
            for name, model in {"target": target, **drafts}.items()
        },
    }
