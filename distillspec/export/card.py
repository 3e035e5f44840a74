"""The model card of an exported draft. Every number in it comes from an evaluation's summary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from distillspec.export.engines import launch_lines
from distillspec.measure.summary import Cell, Comparison, Summary
from distillspec.recipe.hub_id import is_hub_id

DISTILLED = "distilled"
UNDISTILLED = "undistilled"
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
        f"# {facts.name}",
        f"A draft model for speculative decoding with the target {_shown(facts.target)}, distilled "
        f"from {facts.start or _shown(facts.base_model or '')}. On its own it is a weaker language "
        "model; its use is to agree with the target, so that the target decodes several tokens in "
        "one forward. The target's outputs keep their distribution.",
        f"Training: {facts.training}." if facts.training else "",
        "## What was measured",
        facts.caution or "",
        *(_measured(summary) if summary else ["Nothing yet: this draft has not been evaluated."]),
        "## How to run it",
        f"`generation_config.json` recommends blocks of {facts.num_assistant_tokens} tokens.",
        *_launches(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def recommended_gamma(summary: Summary) -> int | None:
    """The best measured gamma of the distilled draft over all temperatures."""
    found = [r for r in summary.recommendation if r.draft == DISTILLED and r.temperature is None]
    return found[0].gamma if found else None


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
        model_name=facts.name if results else None,
        eval_results=results or None,
    )


def _results(summary: Summary) -> Iterator[EvalResult]:
    for cell in _chosen(summary, DISTILLED):
        for kind, name, value, low, high in (
            ("speedup", "speed-up over autoregressive decoding",
             cell.speedup, cell.speedup_low, cell.speedup_high),
            ("block_efficiency", "block efficiency tau (tokens per target forward)",
             cell.tau, cell.tau_low, cell.tau_high),
            ("expected_block_efficiency", "block efficiency tau expected on texts of the target",
             cell.expected_tau, cell.expected_tau_low, cell.expected_tau_high),
            ("acceptance_rate", "acceptance rate alpha",
             cell.alpha, cell.alpha_low, cell.alpha_high),
        ):  # fmt: skip
            on_texts = kind in ("expected_block_efficiency", "acceptance_rate")
            prompts = cell.texts if on_texts else cell.prompts
            if math.isfinite(value):
                yield EvalResult(
                    task_type="text-generation",
                    task_name="speculative decoding",
                    dataset_type=summary.suite,
                    dataset_name=f"{summary.suite}, {prompts} held-out prompts",
                    dataset_config=f"temperature {cell.temperature:g}, gamma {cell.gamma}",
                    metric_type=kind,
                    metric_name=name,
                    metric_value=round(value, 4),
                    metric_args=_bounds(low, high),
                )


def _bounds(low: float, high: float) -> dict[str, float] | None:
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return {"interval_low": round(low, 4), "interval_high": round(high, 4)}


# --- numbers -------------------------------------------------------------------------------------


def _measured(summary: Summary) -> Iterator[str]:
    yield (
        f"Suite `{summary.suite}`, {summary.prompts} held-out prompts, {summary.max_new_tokens} "
        f"new tokens each (alpha and expected tau: {summary.texts} prompts); in brackets "
        f"{100 * summary.confidence:g} % bootstrap intervals over prompts. All drafts at the block "
        "size (gamma) that was fastest for the distilled one; undistilled is the same model before "
        "distillation."
    )
    yield _table(summary)
    yield "\n".join(f"- {line}" for line in _findings(summary))
    own = [r for r in summary.recommendation if r.temperature is not None]
    if own:
        yield "Each draft at its own best gamma: " + "; ".join(
            f"{r.draft}, T = {r.temperature:g}: gamma {r.gamma}, "
            f"{_interval(r.speedup, r.speedup_low, r.speedup_high, 'x')}"
            for r in own
        ) + "."  # fmt: skip
    yield from (f"Note: {note}" for note in summary.notes)
    yield "\n".join(
        f"- {name}: {summary.definitions[name]}."
        for name in ("alpha", "tau", "expected_tau", "speedup")
        if name in summary.definitions
    )


def _table(summary: Summary) -> str:
    """A row per temperature and draft, all drafts at the gamma chosen for the distilled one."""
    lines = [
        "| temperature | gamma | draft | alpha | expected tau | tau | speed-up | tokens/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for chosen in _chosen(summary, DISTILLED):
        for draft in summary.drafts():
            cell = summary.cell(draft, chosen.method, chosen.gamma, chosen.temperature)
            if cell is not None:
                lines.append(_row(cell))
    return "\n".join(lines)


def _row(cell: Cell) -> str:
    columns = (
        f"{cell.temperature:g}",
        f"{cell.gamma}",
        cell.draft,
        _interval(cell.alpha, cell.alpha_low, cell.alpha_high, digits=3),
        _interval(cell.expected_tau, cell.expected_tau_low, cell.expected_tau_high),
        _interval(cell.tau, cell.tau_low, cell.tau_high),
        _interval(cell.speedup, cell.speedup_low, cell.speedup_high, "x"),
        f"{cell.tokens_per_second:.0f}",
    )
    return f"| {' | '.join(columns)} |"


def _chosen(summary: Summary, draft: str) -> list[Cell]:
    """Per temperature, the cell of `draft` with the recommended method and gamma, else its fastest.

    Cells whose speed-up does not exist (nan) are never the fastest.
    """
    chosen = []
    for temperature in summary.temperatures():
        cells = [c for c in summary.cells if (c.draft, c.temperature) == (draft, temperature)]
        advice = {
            (r.method, r.gamma)
            for r in summary.recommendation
            if (r.draft, r.temperature) == (draft, temperature)
        }
        advised = [c for c in cells if (c.method, c.gamma) in advice]
        timed = [c for c in cells if math.isfinite(c.speedup)]
        chosen += (advised or sorted(timed, key=lambda c: -c.speedup) or cells)[:1]
    return chosen


def _findings(summary: Summary) -> Iterator[str]:
    """What distillation changed, whether the draft pays at all; a null result in plain words."""
    chosen = {c.temperature: c for c in _chosen(summary, DISTILLED)}
    for found in summary.comparisons:
        cell = chosen.get(found.temperature)
        if cell is None or found.draft != DISTILLED:
            continue
        if found.gamma in (None, cell.gamma) and found.method in (None, cell.method):
            yield _finding(found)
    for cell in chosen.values():
        if not cell.speedup_low > 1.0:
            yield (
                f"T = {cell.temperature:g}: **no gain shown over decoding without a draft** "
                f"({_interval(cell.speedup, cell.speedup_low, cell.speedup_high, 'x')}): do not "
                "expect this draft to be faster there."
            )


def _finding(found: Comparison) -> str:
    quantity = _QUANTITIES[found.quantity]
    values = f"{_number(found.value)} against {_number(found.against_value)}"
    change = (
        f"difference {_interval(found.difference, found.low, found.high, digits=3)}, "
        f"{_percent(found.relative)} [{_percent(found.relative_low)}, "
        f"{_percent(found.relative_high)}]"
    )
    start = f"T = {found.temperature:g}: {quantity} of the {found.draft} draft"
    if found.verdict == "no difference shown":
        return (
            f"{start}: **no difference shown** to the {found.against} draft ({values}; {change})."
        )
    return f"{start} is {found.verdict} than of the {found.against} one ({values}; {change})."


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "not measured"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"


def _interval(value: float, low: float, high: float, unit: str = "", digits: int = 2) -> str:
    if not math.isfinite(value):
        return "not measured"
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


# --- words ---------------------------------------------------------------------------------------


def _launches(facts: CardFacts) -> Sequence[str]:
    lines = launch_lines(
        facts.target, facts.draft, facts.num_assistant_tokens, has_encoder=facts.has_encoder
    )
    return [
        f"{line.engine}:\n\n```{line.language}\n{line.text}\n```\n\n{line.note}" for line in lines
    ]


def _shown(model: str) -> str:
    """A Hub id as a link; a local folder by its last two names, without the machine's paths."""
    if is_hub_id(model):
        return f"[{model}](https://huggingface.co/{model})"
    return f"`{'/'.join(Path(model).parts[-2:])}`"
