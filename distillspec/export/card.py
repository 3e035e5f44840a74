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
    """The content of a card that is not a measured number.

    Attributes:
        name: Name of the draft.
        draft: Folder or Hub id in the launch lines.
        base_model: The model whose weights the draft started from, if any.
        target: Folder or Hub id of the target.
        num_assistant_tokens: The gamma in generation_config.json.
        training: One line: objective, source of text, temperature, steps.
        start: How the initial draft was made, in words. None: it is base_model.
        caution: A paragraph before the numbers.
        licence: A Hub licence id.
        data: The data set's name on the Hub, if it has one.
        has_encoder: Whether the pair is encoder-decoder.
        is_chat: Whether the pair was trained on chats.
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
    is_chat: bool = False


def draft_card(facts: CardFacts, summary: Summary | None = None) -> str:
    """README.md: metadata, what the draft is for, what was measured, how to launch it.

    Args:
        facts: The content that is not measured.
        summary: The evaluation; without one, the card says that nothing was measured.
    """
    parts = [
        f"---\n{_metadata(facts, summary).to_yaml()}\n---",
        f"# {markdown.words(facts.name)}",
        f"A draft model for speculative decoding with the target {_shown(facts.target)}, distilled "
        f"from {_start(facts)}. Used alone, it is a weaker language model. It agrees with the "
        "target, so that the target decodes several tokens in one forward. The distribution of the "
        "target's outputs does not change.",
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
    """The distilled draft's fastest gamma over all temperatures, of methods that engines run."""
    best = summary.servable(DISTILLED, None)
    return None if best is None else best.gamma


# --- metadata ------------------------------------------------------------------------------------


def _metadata(facts: CardFacts, summary: Summary | None) -> ModelCardData:
    """Metadata for the Hub. The Hub links base_model and datasets, so both must exist there."""
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
                continue  # equal to alpha
            # alpha and expected tau are measured on texts, which may be of more prompts.
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
            "Nothing that serving engines run: the evaluation has no method with one draft and a "
            "fixed gamma, verified token by token. Its report shows the methods that it measured."
        )
        return
    methods = " and ".join(dict.fromkeys(markdown.name(cell.method) for cell in chosen))
    yield (
        f"Suite {markdown.name(summary.suite)}, {summary.prompts} held-out prompts, "
        f"{summary.max_new_tokens} new tokens each (alpha and expected tau: {summary.texts} "
        f"prompts). Brackets hold {100 * summary.confidence:g} % intervals over source documents. "
        f"All numbers are of the method {methods}: one draft, chains of gamma tokens, verified "
        "token by token. This is what the engines below run. All drafts use the block size (gamma) "
        "that was fastest for the distilled draft. `undistilled` is the same model before "
        "distillation."
    )
    yield (
        "Above temperature 0, alpha, tau and speed-up are of *sampled* drafts: each drafted token "
        "is drawn from the draft's distribution q. An engine that drafts by argmax accepts with "
        "another probability, p(argmax q), in the column after alpha. Its tau and speed-up were "
        "not measured."
    )
    yield _table(summary, chosen)
    findings = "\n".join(f"- {line}" for line in _findings(summary, chosen))
    if findings:
        yield findings
    if any(comparison.verdict in ("higher", "lower") for comparison in _tested(summary)):
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
    """A row per temperature and draft, all drafts at the gamma chosen for the distilled draft."""
    cells = [
        summary.cell(draft, cell.method, cell.gamma, cell.temperature)
        for cell in chosen
        for draft in summary.drafts()
    ]
    return markdown.table(card_cells(summary, [cell for cell in cells if cell is not None]))


def _chosen(summary: Summary) -> list[Cell]:
    """At each temperature, the distilled draft's fastest cell of those that engines can run.

    A cell without a speed-up (nan) is used only if no cell has one.
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
    """What distillation changed, and whether the draft is faster than decoding without it."""
    yield from map(_finding, _tested(summary))
    for cell in chosen:
        advice = [
            r.speedup  # wider: picked from several gammas
            for r in summary.recommendation
            if (r.draft, r.method, r.gamma, r.temperature) == cell.key
        ]
        bounds = advice[0] if advice else cell.speedup
        # `not >`, so that an unknown bound (nan) shows no gain.
        if not bounds.low > 1.0:
            speedup = with_interval(cell.speedup.value, bounds.low, bounds.high, unit="x")
            yield (
                f"T = {cell.temperature:g}: **no gain shown over decoding without a draft** "
                f"({speedup}): do not expect this draft to be faster there."
            )


def _tested(summary: Summary) -> list[DraftComparison]:
    of_draft = [comparison for comparison in summary.comparisons if comparison.draft == DISTILLED]
    return [comparison for comparison in of_draft if comparison.verdict != "not tested"]


def _finding(comparison: DraftComparison) -> str:
    quantity, against = _QUANTITIES[comparison.quantity], comparison.against
    values = f"{_number(comparison.value)} against {_number(comparison.against_value)}"
    percent = bracketed(100 * comparison.relative.low, 100 * comparison.relative.high, "+.1f", " %")
    change = (
        f"difference {with_interval(*comparison.difference, form='.3f')}, "
        f"{number(100 * comparison.relative.value, '+.1f', ' %')} {percent}"
    )
    at = "" if comparison.gamma is None else f", gamma {comparison.gamma}"
    start = f"T = {comparison.temperature:g}{at}: {quantity} of the {comparison.draft} draft"
    if comparison.verdict == "too few documents":
        return (
            f"{start} against the {against} draft: {values}; {change}; {comparison.documents} "
            "documents are too few for a verdict."
        )
    if comparison.verdict == "no difference shown":
        return f"{start}: **no difference shown** to the {against} draft ({values}; {change})."
    return f"{start} is {comparison.verdict} than of the {against} draft ({values}; {change})."


def _number(value: float) -> str:
    return known(value, ".0f" if abs(value) >= 100 else ".3f")


# --- words ---------------------------------------------------------------------------------------


def _advice(gamma: int, summary: Summary | None) -> str:
    """Where the exported gamma comes from, with the name of the measured method."""
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
    return f"{text}, as its recipe sets. The fastest measured gamma was {best.gamma} {measured}."


def _start(facts: CardFacts) -> str:
    if facts.start is not None:
        return markdown.words(facts.start)
    return _shown(facts.base_model or "")


def _launches(facts: CardFacts) -> Sequence[str]:
    lines = launch_lines(
        facts.target,
        facts.draft,
        facts.num_assistant_tokens,
        has_encoder=facts.has_encoder,
        is_chat=facts.is_chat,
    )
    return [
        f"{line.engine}:\n\n{markdown.code_block(line.language, line.text)}\n\n{line.note}"
        for line in lines
    ]


def _shown(model: str) -> str:
    """A Hub id as a link; a local folder by its last two names, without the machine's paths.

    The dots tell a folder from a Hub id.
    """
    if is_hub_id(model):
        return f"[{model}](https://huggingface.co/{model})"
    return markdown.name("/".join(["...", *Path(model).parts[-2:]]))
