"""Records of an evaluation, which the terminal, the report and the card show.

DEFINITIONS in summary/definitions.py defines every number. Records of a single cell are in
summary/cells.py.
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
    """One draft against another, paired over documents.

    Attributes:
        quantity: speed means tokens per second.
        method, gamma: None for alpha; expected tau has no method.
        verdict: At the recommended gamma of each temperature, all of them tested together;
            elsewhere "not tested".
        documents: 0 in summaries of an earlier version.
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
    """A cell in the ranking of a temperature by tokens per second.

    Attributes:
        drafted_per_token: Verified draft tokens per emitted token.
        wasted_per_token: Rejected ones of these; nan for parallel methods, which discard tokens
            without verifying them.
        forwards_per_token: Forwards of the target per emitted token.
        target_busy, draft_busy: Share of the time that each side works, if both work in parallel.
        relative: Tokens per second over the fastest cell's minus 1, paired. The interval is valid
            for any fastest cell.
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
    """The speed of drafting the best length in each round; see DEFINITIONS.

    Attributes:
        method, gamma: The cell whose rounds were measured. Other attributes as in Ranked.
    """

    tokens_per_second: float
    tau: float
    drafted_per_token: float
    forwards_per_token: float
    relative: Interval


@dataclass(frozen=True)
class Regret:
    """A method that chooses, against the best of its arms; see DEFINITIONS.

    Attributes:
        untimed_arms: Arms that are not cells of the suite. The best may be among them.
        chosen, best, mean: Total over all prompts of the chooser, of best_arm, and the mean of the
            arms.
        relative: chosen / best - 1, paired over documents.
        regret, mean_regret: Cumulative after each prompt, of the chooser and the mean arm.
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
    """The best measured gamma of a draft at a temperature; None: over all temperatures."""

    draft: str
    method: str
    temperature: float | None
    gamma: int
    speedup: Interval
    words: str


@dataclass(frozen=True)
class NoiseFloor(InCell):
    """A cell timed a second time: tokens per second and tau over those of the first, minus 1."""

    documents: int
    speed: Interval
    tau: Interval


@dataclass(frozen=True)
class Quality:
    """Scores of a metric over completions of the target alone, or decoded with a draft."""

    completions_of: str
    temperature: float
    metric: str
    completions: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Piece:
    """The text of a token and its fate: accepted, corrected, bonus."""

    text: str
    fate: str


@dataclass(frozen=True)
class Example(InCell):
    """A completion with the fate of every token, of the prompt with the median tau."""

    prompt_key: str
    prompt: str
    tau: float
    verifications: int
    pieces: list[Piece]


@dataclass(frozen=True)
class GreedyDivergence:
    """The first position where greedy speculative output differs from the baseline's.

    In low precision, forwards over one and over several tokens differ in the last bits, so the
    argmax of a near-tie can change.

    Attributes:
        gap: The target's highest logit minus the lower logit of the two tokens.
        are_top_two: No other token has a higher logit. If False, a near-tie is no explanation.
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
    """All results of an evaluation.

    Attributes:
        standard_methods: Names of the methods that transformers and serving engines run too: one
            draft, chains of fixed gamma, verified token by token, lossless.
        notes: All findings as sentences.
        cautions: Findings that make the numbers of the standard methods doubtful. A model card
            repeats them.
        documents, text_documents: Number of documents of the prompts and of the texts' prompts; 0
            in summaries of an earlier version.
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
        """The draft of interest: the distilled draft, else the last draft."""
        names = self.drafts()
        return DISTILLED if DISTILLED in names else names[-1]

    def servable(self, draft: str, temperature: float | None) -> Recommendation | None:
        """The fastest measured configuration of `draft` that transformers and engines can run.

        Args:
            draft: Name of the draft.
            temperature: None: over all temperatures.

        Returns:
            None if no such configuration was measured.
        """
        runnable = [
            recommended
            for recommended in self.recommendation
            if recommended.method in self.standard_methods
        ]
        return fastest(runnable, draft, temperature)

    def fastest(self, draft: str, temperature: float | None) -> Recommendation | None:
        """The fastest measured configuration of `draft`, of any method."""
        return fastest(self.recommendation, draft, temperature)

    @property
    def shown_method(self) -> str:
        """The method of figures that show a single method.

        The fastest that engines can run, else the fastest of the shown draft, else the first.
        """
        draft = self.shown_draft
        best = self.servable(draft, None) or self.fastest(draft, None)
        return self.methods()[0] if best is None else best.method

    def of_shown_method(self) -> list[Cell]:
        method = self.shown_method
        return [cell for cell in self.cells if cell.method == method]

    def best_by_category(self) -> list[CategoryCell]:
        """Cells of each draft, method and temperature at the best gamma, by category."""
        best = {(r.draft, r.method, r.gamma, r.temperature) for r in self.recommendation}
        cells = [cell for cell in self.categories if cell.key in best]
        names = list(dict.fromkeys(cell.category for cell in cells))
        return sorted(cells, key=lambda cell: (cell.temperature, names.index(cell.category)))


def fastest(
    recommendation: Iterable[Recommendation], draft: str, temperature: float | None
) -> Recommendation | None:
    """The recommendation with the highest speed-up; None if no speed-up exists."""
    timed = [
        recommended
        for recommended in recommendation
        if (recommended.draft, recommended.temperature) == (draft, temperature)
        and math.isfinite(recommended.speedup.value)
    ]
    return max(timed, key=lambda recommended: recommended.speedup.value, default=None)
