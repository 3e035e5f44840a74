"""What an evaluation found, as records that the table, report and card read.

DEFINITIONS, in measure/definitions.py, says what each number means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from distillspec.measure.stats.intervals import Verdict
from distillspec.measure.summary.breakdown import CategoryCell, ContextBin

DISTILLED = "distilled"
Quantity = Literal["alpha", "expected tau", "tau", "speed"]
RegretQuantity = Literal["rounds", "seconds"]
Place = Literal["fastest", "within noise of it", "slower", "too few documents"]


@dataclass(frozen=True)
class Cell:
    """One draft, method, gamma and temperature; every quantity as in DEFINITIONS."""

    draft: str
    method: str
    gamma: int
    temperature: float
    prompts: int
    texts: int
    alpha: float
    alpha_low: float
    alpha_high: float
    alpha_argmax: float
    alpha_argmax_low: float
    alpha_argmax_high: float
    tau: float
    tau_low: float
    tau_high: float
    expected_tau: float
    expected_tau_low: float
    expected_tau_high: float
    tau_iid: float
    draft_acceptance: float
    acceptance_by_position: list[float]
    draft_steps: float
    draft_to_target_time: float
    v: float
    predicted_speedup: float
    predicted_from_alpha: float
    speedup: float
    speedup_low: float
    speedup_high: float
    speedup_with_prefill: float
    measured_over_predicted: float
    tokens_per_second: float
    break_even_alpha: float | None
    perfect_draft_cap: float
    perfect_draft_gamma: int
    repeated_ngram_share: float | None


@dataclass(frozen=True)
class Baseline:
    """Autoregressive decoding with the target alone.

    entropy_nats: of the target's distribution at this temperature (at 0: at temperature 1), per
    token of its own text. after_end_share: share of the timed tokens after an end-of-text.
    step_spread: distance between the quartiles of an isolated step's times over their median, the
    largest of all kinds of steps.
    """

    temperature: float
    prompts: int
    tokens_per_second: float
    tokens_per_second_low: float
    tokens_per_second_high: float
    prefill_seconds: float
    target_step_seconds: float
    step_spread: float
    entropy_nats: float
    after_end_share: float
    repeated_ngram_share: float | None


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
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    verdict: Verdict
    documents: int


@dataclass(frozen=True)
class Ranked:
    """One method's place at a temperature, by tokens per second; the fastest comes first.

    Per token emitted: drafted tokens that were judged, those of them that were not kept (nan where
    two processes draft and judge, and much is thrown away unjudged), forwards of the target.
    target_busy, draft_busy: share of the time that each side works, where both work at once.
    relative: tokens per second beyond the fastest one's, paired, with an interval that holds
    whichever cell turns out fastest.
    """

    draft: str
    method: str
    gamma: int
    temperature: float
    tokens_per_second: float
    tau: float
    drafted_per_token: float
    wasted_per_token: float
    forwards_per_token: float
    target_busy: float
    draft_busy: float
    relative: float
    relative_low: float
    relative_high: float
    verdict: Place


@dataclass(frozen=True)
class Oracle:
    """What drafting the best length each round would reach, told in hindsight; see DEFINITIONS.

    method, gamma: of the cell whose rounds it is read from. Others: as of Ranked.
    """

    draft: str
    method: str
    gamma: int
    temperature: float
    tokens_per_second: float
    tau: float
    drafted_per_token: float
    forwards_per_token: float
    relative: float
    relative_low: float
    relative_high: float


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
    relative: float
    relative_low: float
    relative_high: float
    regret: list[float]
    mean_regret: list[float]


@dataclass(frozen=True)
class Recommendation:
    """The best measured gamma of a draft at a temperature; temperature None: over all of them."""

    draft: str
    method: str
    temperature: float | None
    gamma: int
    speedup: float
    speedup_low: float
    speedup_high: float
    words: str


@dataclass(frozen=True)
class NoiseFloor:
    """A cell timed a second time, over its first time minus 1: tokens per second and tau."""

    draft: str
    method: str
    gamma: int
    temperature: float
    documents: int
    speed: float
    speed_low: float
    speed_high: float
    tau: float
    tau_low: float
    tau_high: float


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
class Example:
    """A completion with the fate of every token; the prompt whose tau is the median one."""

    draft: str
    method: str
    gamma: int
    temperature: float
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
        wanted = (draft, method, gamma, temperature)
        return next(
            (c for c in self.cells if (c.draft, c.method, c.gamma, c.temperature) == wanted), None
        )

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
        best = {(o.draft, o.method, o.gamma, o.temperature) for o in self.recommendation}
        found = [o for o in self.categories if (o.draft, o.method, o.gamma, o.temperature) in best]
        names = list(dict.fromkeys(one.category for one in found))
        return sorted(found, key=lambda one: (one.temperature, names.index(one.category)))


def fastest(
    recommendation: Iterable[Recommendation], draft: str, temperature: float | None
) -> Recommendation | None:
    """The one with the highest speed-up; None without any whose speed-up exists."""
    timed = [
        one
        for one in recommendation
        if (one.draft, one.temperature) == (draft, temperature) and math.isfinite(one.speedup)
    ]
    return max(timed, key=lambda one: one.speedup, default=None)
