"""The model card of an exported draft. Every number in it comes from an evaluation's summary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from distillspec.export import markdown
from distillspec.export.engines import launch_lines
from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.cells import Cell
from distillspec.measure.summary.records import DISTILLED, DraftComparison, Summary
from distillspec.recipe.hub_id import is_hub_id
from distillspec.report.columns import card_cells
from distillspec.text.numbers import bracketed, known, number, with_interval

TAGS = ("speculative-decoding", "draft-model", "knowledge-distillation")

_QUANTITIES = {
    "alpha": "acceptance rate alpha",
    "tau": "block efficiency tau",
    "expected tau": "expected block efficiency tau",
    "speed": "decoding speed (tokens/s)",
}


@dataclass(frozen=True)
class CardFacts:
    """What the card says besides numbers.

    name: of the draft. draft: folder or Hub id in the launch lines. base_model: whose weights the
    draft began with, if any. start: what it was made of, in words, unless it is base_model trained
    further. caution: said before the numbers. has_encoder: of an encoder-decoder pair. training:
    one line (objective, source of text, temperature, steps). licence: a Hub licence id. data: name
    of the data set, where it has one on the Hub.
    """

    name: str
    draft: str
    base_model: str | None
    target: str
    num_assistant_tokens: int
    training: str
    start: str | None = None
    caution: str | None = None
    licence: str | None = None
    data: str | None = None
    has_encoder: bool = False


def draft_card(facts: CardFacts, summary: Summary | None = None) -> str:
    """README.md: metadata, what the draft is for, what was measured, how to launch it.

    Without a summary the card says that nothing was measured.
    """
    parts = [
        f"---\n{_metadata(facts, summary).to_yaml()}\n---",
        f"# {markdown.words(facts.name)}",
        f"A draft model for speculative decoding with the target {_shown(facts.target)}, distilled "
        f"from {_start(facts)}. On its own it is a weaker language "
        "model; its use is to agree with the target, so that the target decodes several tokens in "
        "one forward. The target's outputs keep their distribution.",
        f"Training: {markdown.words(facts.training)}." if facts.training else "",
        "## What was measured",
        facts.caution or "",
        *(_measured(summary) if summary else ["Nothing yet: this draft has not been evaluated."]),
        "## How to run it",
        _advice(facts.num_assistant_tokens, summary),
        *_launches(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def recommended_gamma(summary: Summary) -> int | None:
    """Of the fastest configuration of the distilled draft that engines run, all temperatures."""
    best = summary.servable(DISTILLED, None)
    return None if best is None else best.gamma


# --- metadata ------------------------------------------------------------------------------------


def _metadata(facts: CardFacts, summary: Summary | None) -> ModelCardData:
    """Only names that exist on the Hub go into base_model and datasets: it links them."""
    base = facts.base_model if facts.base_model and is_hub_id(facts.base_model) else None
    results = list(_results(summary)) if summary else []
    return ModelCardData(
        base_model=base,
        base_model_relation="finetune" if base else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(TAGS),
        license=facts.licence,
        datasets=[facts.data] if facts.data and is_hub_id(facts.data) else None,
        model_name=markdown.one_line(facts.name) if results else None,
        eval_results=results or None,
    )


def _results(summary: Summary) -> Iterator[EvalResult]:
    for cell in _chosen(summary):
        for kind, name, estimate in (
            ("speedup", "speed-up over autoregressive decoding", cell.speedup),
            ("block_efficiency", "block efficiency tau (tokens per target forward)", cell.tau),
            ("expected_block_efficiency", "block efficiency tau expected on texts of the target",
             cell.expected_tau),
            ("acceptance_rate", "acceptance rate alpha, sampled drafts", cell.alpha),
            ("acceptance_rate_argmax", "acceptance rate p(argmax q), argmax drafts",
             cell.alpha_argmax),
        ):  # fmt: skip
            if kind == "acceptance_rate_argmax" and cell.temperature == 0.0:
                continue  # it is alpha
            on_texts = kind not in ("speedup", "block_efficiency")
            prompts = cell.texts if on_texts else cell.prompts
            if math.isfinite(estimate.value):
                yield EvalResult(
                    task_type="text-generation",
                    task_name="speculative decoding",
                    dataset_type=markdown.one_line(summary.suite),
                    dataset_name=markdown.one_line(f"{summary.suite}, {prompts} held-out prompts"),
                    dataset_config=f"temperature {cell.temperature:g}, gamma {cell.gamma}",
                    dataset_args={"method": cell.method},
                    metric_type=kind,
                    metric_name=name,
                    metric_value=round(estimate.value, 4),
                    metric_args=_bounds(estimate),
                )


def _bounds(estimate: Interval) -> dict[str, float] | None:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return None
    return {"interval_low": round(estimate.low, 4), "interval_high": round(estimate.high, 4)}


# --- numbers -------------------------------------------------------------------------------------


def _measured(summary: Summary) -> Iterator[str]:
    chosen = _chosen(summary)
    if not chosen:
        yield (
            "Nothing that serving engines run: the evaluation has no method of one draft and fixed "
            "gamma, verified token by token. Its report has the methods that it measured."
        )
        return
    methods = " and ".join(dict.fromkeys(markdown.name(cell.method) for cell in chosen))
    yield (
        f"Suite {markdown.name(summary.suite)}, {summary.prompts} held-out prompts, "
        f"{summary.max_new_tokens} new tokens each (alpha and expected tau: {summary.texts} "
        f"prompts); in brackets {100 * summary.confidence:g} % intervals over source documents. "
        f"All numbers are of the method {methods}: one draft, chains of gamma tokens, verified "
        "token by token, which is what the engines below run. All drafts at the block size (gamma) "
        "that was fastest for the distilled one; undistilled is the same model before "
        "distillation."
    )
    yield (
        "Above temperature 0, alpha, tau and speed-up are of *sampled* drafts: each drafted token "
        "is drawn from the draft's distribution q. An engine that drafts by argmax accepts with "
        "another probability, p(argmax q), which stands beside alpha; its tau and speed-up were "
        "not measured."
    )
    yield _table(summary, chosen)
    findings = "\n".join(f"- {line}" for line in _findings(summary, chosen))
    if findings:
        yield findings
    if any(one.verdict in ("higher", "lower") for one in _tested(summary)):
        yield "Comparisons with a verdict were tested together (Holm)."
    own = [
        best
        for temperature in summary.temperatures()
        for draft in summary.drafts()
        if (best := summary.servable(draft, temperature)) is not None
    ]
    if own:
        yield "Each draft at its own best gamma: " + "; ".join(
            f"{markdown.words(r.draft)}, T = {r.temperature:g}: gamma {r.gamma}, "
            f"{with_interval(*r.speedup, unit='x')}"
            for r in own
        ) + "."  # fmt: skip
    yield from (f"Note: {markdown.words(note)}" for note in summary.cautions)
    yield "\n".join(
        f"- {name}: {summary.definitions[name]}."
        for name in ("alpha", "alpha_argmax", "tau", "expected_tau", "speedup")
        if name in summary.definitions
    )


def _table(summary: Summary, chosen: Sequence[Cell]) -> str:
    """A row per temperature and draft, all drafts at the gamma chosen for the distilled one."""
    cells = [
        summary.cell(draft, cell.method, cell.gamma, cell.temperature)
        for cell in chosen
        for draft in summary.drafts()
    ]
    return markdown.table(card_cells(summary, [cell for cell in cells if cell is not None]))


def _chosen(summary: Summary) -> list[Cell]:
    """Per temperature, the distilled draft's fastest cell of those that engines can run.

    Cells whose speed-up does not exist (nan) are shown only where there is no other.
    """
    chosen = []
    for temperature in summary.temperatures():
        cells = [
            cell
            for cell in summary.cells
            if (cell.draft, cell.temperature) == (DISTILLED, temperature)
            and cell.method in summary.standard_methods
        ]
        best = summary.servable(DISTILLED, temperature)
        advised = [c for c in cells if best and (c.method, c.gamma) == (best.method, best.gamma)]
        timed = [c for c in cells if math.isfinite(c.speedup.value)]
        chosen += (advised or sorted(timed, key=lambda c: -c.speedup.value) or cells)[:1]
    return chosen


def _findings(summary: Summary, chosen: Sequence[Cell]) -> Iterator[str]:
    """What distillation changed, whether the draft pays at all; a null result in plain words."""
    yield from map(_finding, _tested(summary))
    for cell in chosen:
        advice = [
            r.speedup  # wider: picked from several gammas
            for r in summary.recommendation
            if (r.draft, r.method, r.gamma, r.temperature) == cell.key
        ]
        bounds = advice[0] if advice else cell.speedup
        if not bounds.low > 1.0:
            speedup = with_interval(cell.speedup.value, bounds.low, bounds.high, unit="x")
            yield (
                f"T = {cell.temperature:g}: **no gain shown over decoding without a draft** "
                f"({speedup}): do not expect this draft to be faster there."
            )


def _tested(summary: Summary) -> list[DraftComparison]:
    of_draft = [one for one in summary.comparisons if one.draft == DISTILLED]
    return [one for one in of_draft if one.verdict != "not tested"]


def _finding(found: DraftComparison) -> str:
    quantity = _QUANTITIES[found.quantity]
    values = f"{_number(found.value)} against {_number(found.against_value)}"
    percent = bracketed(100 * found.relative.low, 100 * found.relative.high, "+.1f", " %")
    change = (
        f"difference {with_interval(*found.difference, form='.3f')}, "
        f"{number(100 * found.relative.value, '+.1f', ' %')} {percent}"
    )
    at = "" if found.gamma is None else f", gamma {found.gamma}"
    start = f"T = {found.temperature:g}{at}: {quantity} of the {found.draft} draft"
    if found.verdict == "too few documents":
        return (
            f"{start} against the {found.against} one: {values}; {change}; {found.documents} "
            "documents are too few to say more."
        )
    if found.verdict == "no difference shown":
        return (
            f"{start}: **no difference shown** to the {found.against} draft ({values}; {change})."
        )
    return f"{start} is {found.verdict} than of the {found.against} one ({values}; {change})."


def _number(value: float) -> str:
    return known(value, ".0f" if abs(value) >= 100 else ".3f")


# --- words ---------------------------------------------------------------------------------------


def _advice(gamma: int, summary: Summary | None) -> str:
    """What the exported gamma rests on, with the measured method named."""
    text = f"`generation_config.json` recommends blocks of {gamma} tokens"
    best = summary.servable(DISTILLED, None) if summary else None
    if summary is None or best is None:
        return f"{text}; which gamma is fastest was not measured."
    speedup = with_interval(*best.speedup, unit="x")
    measured = (
        f"(method {markdown.name(best.method)}, suite {markdown.name(summary.suite)}, "
        f"{speedup} over all its temperatures)"
    )
    if gamma == best.gamma:
        return f"{text}: the fastest measured of what transformers and engines run {measured}."
    return f"{text}, as its recipe sets; the fastest measured was gamma {best.gamma} {measured}."


def _start(facts: CardFacts) -> str:
    if facts.start is not None:
        return markdown.words(facts.start)
    return _shown(facts.base_model or "")


def _launches(facts: CardFacts) -> Sequence[str]:
    lines = launch_lines(
        facts.target, facts.draft, facts.num_assistant_tokens, has_encoder=facts.has_encoder
    )
    return [
        f"{line.engine}:\n\n{markdown.code_block(line.language, line.text)}\n\n{line.note}"
        for line in lines
    ]


def _shown(model: str) -> str:
    """A Hub id as a link; a local folder by its last two names, without the machine's paths."""
    if is_hub_id(model):
        return f"[{model}](https://huggingface.co/{model})"
    return markdown.name("/".join(Path(model).parts[-2:]))
