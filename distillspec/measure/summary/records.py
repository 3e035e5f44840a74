"""What an evaluation found, as records that the table, report and card read.

DEFINITIONS, in measure/definitions.py, says what each number means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from distillspec.measure.stats.intervals import Interval, Verdict
from distillspec.measure.summary.cells import (
    Baseline,
    CategoryCell,
    Cell,
    CellKey,
    ContextBin,
    InCell,
)

DISTILLED = "distilled"
Quantity = Literal["alpha", "expected tau", "tau", "speed"]
RegretQuantity = Literal["rounds", "seconds"]
RankVerdict = Literal["fastest", "within noise of it", "slower", "too few documents"]


@dataclass(frozen=True)
class DraftComparison:
    """draft against another, paired over documents. method and gamma are None for alpha,
    method for the expected tau.

    quantity speed: tokens per second. low, high: interval of the difference. verdict: at the
    recommended gamma of each temperature, all of them tested together; elsewhere "not tested".
    documents: 0 in summaries that were written before documents were kept.
    """

    quantity: Quantity
    draft: str
    against: str
    method: str | None
    gamma: int | None
    temperature: float
    prompts: int
    value: float
    against_value: float
    difference: Interval
    relative: Interval
    verdict: Verdict
    documents: int


@dataclass(frozen=True)
class Ranked(InCell):
    """One method's place at a temperature, by tokens per second; the fastest comes first.

    Per token emitted: drafted tokens that were judged, those of them that were not kept (nan where
    two processes draft and judge, and much is thrown away unjudged), forwards of the target.
    target_busy, draft_busy: share of the time that each side works, where both work at once.
    relative: tokens per second beyond the fastest one's, paired, with an interval that holds
    whichever cell turns out fastest.
    """

    tokens_per_second: float
    tau: float
    drafted_per_token: float
    wasted_per_token: float
    forwards_per_token: float
    target_busy: float
    draft_busy: float
    relative: Interval
    verdict: RankVerdict


@dataclass(frozen=True)
class Oracle(InCell):
    """What drafting the best length each round would reach, told in hindsight; see DEFINITIONS.

    method, gamma: of the cell whose rounds it is read from. Others: as of Ranked.
    """

    tokens_per_second: float
    tau: float
    drafted_per_token: float
    forwards_per_token: float
    relative: Interval


@dataclass(frozen=True)
class Regret:
    """A method that chooses against the best of its arms; see DEFINITIONS.

    chosen, best, mean: of all prompts, by the chooser, by best_arm, and on average over the arms.
    relative: chosen beyond best, with its interval, paired over prompts. regret, mean_regret: after
    each prompt. untimed_arms: those that are no cells of the suite; the best may be among them.
    """

    draft: str
    method: str
    temperature: float
    quantity: RegretQuantity
    arms: list[str]
    untimed_arms: list[str]
    best_arm: str
    chosen: float
    best: float
    mean: float
    relative: Interval
    regret: list[float]
    mean_regret: list[float]


@dataclass(frozen=True)
class Recommendation:
    """The best measured gamma of a draft at a temperature; temperature None: over all of them."""

    draft: str
    method: str
    temperature: float | None
    gamma: int
    speedup: Interval
    words: str


@dataclass(frozen=True)
class NoiseFloor(InCell):
    """A cell timed a second time, over its first time minus 1: tokens per second and tau."""

    documents: int
    speed: Interval
    tau: Interval


@dataclass(frozen=True)
class Quality:
    """Scores of a metric over completions: of the target alone, or decoded with a draft."""

    completions_of: str
    temperature: float
    metric: str
    completions: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Piece:
    """A token's text and its fate: accepted, corrected, bonus."""

    text: str
    fate: str


@dataclass(frozen=True)
class Example(InCell):
    """A completion with the fate of every token; the prompt whose tau is the median one."""

    prompt_key: str
    prompt: str
    tau: float
    verifications: int
    pieces: list[Piece]


@dataclass(frozen=True)
class GreedyDivergence:
    """Where greedy speculative output first leaves the baseline's, and how near the tie was.

    gap: the target's highest logit there less the lower of the two tokens' logits. In low
    precision, forwards over one and over several tokens differ in the last bits, and near-ties can
    flip. are_top_two: no third token has a higher logit than either; else the gap excuses nothing.
    """

    draft: str
    method: str
    gamma: int
    prompt_key: str
    position: int
    gap: float
    are_top_two: bool = True


@dataclass(frozen=True)
class Summary:
    """All of an evaluation.

    standard_methods: names of the methods that transformers and serving engines run too: one
    draft, chains of fixed gamma, verified token by token, lossless. documents, text_documents: that
    the prompts and the texts' prompts come from; 0 in summaries that were written before documents
    were kept. notes: all findings, in sentences. cautions: those of them that make the numbers of
    the standard methods doubtful; a model card repeats these.
    """

    suite: str
    created: str
    prompts: int
    texts: int
    max_new_tokens: int
    confidence: float
    standard_methods: list[str]
    cells: list[Cell]
    baseline: list[Baseline]
    comparisons: list[DraftComparison]
    ranking: list[Ranked]
    oracles: list[Oracle]
    regrets: list[Regret]
    categories: list[CategoryCell]
    contexts: list[ContextBin]
    recommendation: list[Recommendation]
    quality: list[Quality]
    greedy_divergences: list[GreedyDivergence]
    examples: list[Example]
    notes: list[str]
    cautions: list[str]
    environment: dict[str, Any]
    definitions: dict[str, str]
    documents: int
    text_documents: int
    noise_floor: NoiseFloor | None

    def drafts(self) -> list[str]:
        return list(dict.fromkeys(cell.draft for cell in self.cells))

    def methods(self) -> list[str]:
        return list(dict.fromkeys(cell.method for cell in self.cells))

    def gammas(self) -> list[int]:
        return sorted({cell.gamma for cell in self.cells})

    def temperatures(self) -> list[float]:
        return sorted({cell.temperature for cell in self.cells})

    def cell(self, draft: str, method: str, gamma: int, temperature: float) -> Cell | None:
        key = CellKey(draft, method, gamma, temperature)
        return next((cell for cell in self.cells if cell.key == key), None)

    @property
    def shown_draft(self) -> str:
        """The draft that an evaluation is about: the distilled one, else the last one."""
        names = self.drafts()
        return DISTILLED if DISTILLED in names else names[-1]

    def servable(self, draft: str, temperature: float | None) -> Recommendation | None:
        """The fastest measured configuration of `draft` that transformers and engines can run.

        temperature: None for the one over all temperatures. None where nothing of that kind was
        measured.
        """
        runnable = [one for one in self.recommendation if one.method in self.standard_methods]
        return fastest(runnable, draft, temperature)

    def fastest(self, draft: str, temperature: float | None) -> Recommendation | None:
        """The fastest measured configuration of `draft`, whatever its method."""
        return fastest(self.recommendation, draft, temperature)

    @property
    def shown_method(self) -> str:
        """The method that a figure shows where it has room for one alone.

        The one that engines can run, else the fastest of the shown draft, else the first.
        """
        draft = self.shown_draft
        best = self.servable(draft, None) or self.fastest(draft, None)
        return self.methods()[0] if best is None else best.method

    def of_shown_method(self) -> list[Cell]:
        method = self.shown_method
        return [cell for cell in self.cells if cell.method == method]

    def best_by_category(self) -> list[CategoryCell]:
        """Of each draft, method and temperature the gamma that is recommended, one category after
        another.
        """
        best = {(r.draft, r.method, r.gamma, r.temperature) for r in self.recommendation}
        cells = [cell for cell in self.categories if cell.key in best]
        names = list(dict.fromkeys(cell.category for cell in cells))
        return sorted(cells, key=lambda cell: (cell.temperature, names.index(cell.category)))


def fastest(
    recommendation: Iterable[Recommendation], draft: str, temperature: float | None
) -> Recommendation | None:
    """The one with the highest speed-up; None without any whose speed-up exists."""
    timed = [
        one
        for one in recommendation
        if (one.draft, one.temperature) == (draft, temperature) and math.isfinite(one.speedup.value)
    ]
    return max(timed, key=lambda one: one.speedup.value, default=None)
