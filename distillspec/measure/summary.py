"""summary.json: what an evaluation found, as records that the table, report and card read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from distillspec import atomic
from distillspec.errors import DistillSpecError
from distillspec.measure.breakdown import FEW, CategoryCell, ContextBin

DEFINITIONS = {
    "alpha": (
        "acceptance rate: mean of sum_v min(p_v, q_v) over the positions of text drawn from the "
        "target at this temperature, up to end-of-text, one text a prompt, teacher-forced; at "
        "temperature 0 the share of positions where both models name the same token. Once per "
        "draft and temperature: it does not depend on gamma"
    ),
    "tau": (
        "block efficiency: tokens emitted per verification forward of the target, correction or "
        "bonus token included, prefill not counted, rounds cut short by the length limit left out; "
        "in [1, gamma + 1]"
    ),
    "expected_tau": (
        "the tau that chains of gamma tokens under token verification have in expectation on those "
        "same texts: given the text, each token x was a kept draft token with probability "
        "min(1, q(x)/p(x)), and the mean number of rounds follows exactly. The texts are a sample, "
        "the same for all drafts; drafting and accepting have no dice in it: use it to compare "
        "drafts. Like timed decoding it ignores end-of-text"
    ),
    "texts": "prompts whose texts of the target alpha and the expected tau are read on",
    "draft_acceptance": "accepted drafted tokens / drafted tokens, whole rounds",
    "category": (
        "what a prompt is about, as its data set or suite says; of Python code how the prompt was "
        "cut. Rates and intervals are over the prompts of one category; of fewer than "
        f"{FEW} prompts only counts are told"
    ),
    "context": (
        "tokens before the first drafted one, of prompt and output, in bins from one power of two "
        "to the next; acceptance as draft_acceptance. A bin holds late rounds of short prompts and "
        "early rounds of long ones alike"
    ),
    "acceptance_by_position": "drafts accepted at position i / drafts made, i = 1..gamma",
    "draft_to_target_time": (
        "c: median time of one draft step, drawing its token included, over the median time of a "
        "one-token target step, drawing its token included; isolated steps, interleaved"
    ),
    "v": (
        "median time of a target forward over gamma + 1 tokens, verification included, over that "
        "of a one-token target step; isolated steps, interleaved. Compiled runners pad a block by "
        "up to two tokens"
    ),
    "predicted_speedup": "tau / (draft steps per verification * c + v), with the measured tau",
    "predicted_from_alpha": (
        "the same with tau of independent tokens, (1 - alpha^(gamma+1)) / (1 - alpha): what can be "
        "said before anything is decoded"
    ),
    "speedup": (
        "wall-clock of autoregressive decoding / wall-clock of speculative decoding: the same "
        "runner, prompts and number of tokens on both sides, prefill apart; ratio of sums over "
        "prompts. Timed decoding ignores end-of-text and runs to equal lengths"
    ),
    "speedup_with_prefill": "the same with the prefill of the prompt counted on both sides",
    "intervals": (
        "percentile bootstrap over prompts; differences between drafts are paired by prompt. Each "
        "interval stands alone: no correction for the number of cells looked at"
    ),
    "break_even_alpha": (
        "the alpha of independent tokens at which the best measured gamma gives speed-up 1, from "
        "c and v; empty where even alpha = 1 does not reach it"
    ),
    "perfect_draft_cap": "speed-up predicted at alpha = 1 and the best gamma of the suite",
    "repeated_ngram_share": (
        "share of the 4-grams of a completion that occurred earlier in it, temperature 0: loops "
        "flatter alpha"
    ),
    "regret": (
        "of a method that chooses: the rounds (or seconds) it needed for the texts of all prompts, "
        "less those of the one arm that needed the fewest, known in hindsight: negative where "
        "changing arms paid. All were timed in the same evaluation, on the same prompts, to the "
        "same length; above temperature 0 each with dice of its own. In rounds the best arm is "
        "mostly the one with the largest gamma, whatever it costs. Cumulative over prompts in "
        "their order; the mean arm is what choosing blindly would cost"
    ),
    "oracle": (
        "no method, but what chains of the best length each round would reach: the length that "
        "stops just before the first token that would be rejected, known in hindsight. The "
        "measured speed of token verification at its largest gamma, times what the cost model says "
        "of the time: its rounds at gamma c + v(gamma), over the same rounds with their a kept "
        "tokens at a c + v(a), v(0) = 1, linear between the gammas that were timed. The tokens are "
        "the same; wasted draft steps vanish, and a stop rule costs nothing. Never more than the "
        "largest gamma is drafted"
    ),
    "recommendation": (
        "the gamma with the highest measured speed-up; picking the best of several noisy numbers "
        "favours it a little"
    ),
}

Quantity = Literal["alpha", "expected tau", "tau", "speed"]
Verdict = Literal["higher", "lower", "no difference shown"]
RegretQuantity = Literal["rounds", "seconds"]
Place = Literal["fastest", "within noise of it", "slower"]


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
class Comparison:
    """draft against another, paired over prompts. method and gamma are None for alpha,
    method for the expected tau.

    quantity speed: tokens per second. low, high: interval of the difference.
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


@dataclass(frozen=True)
class Ranked:
    """One method's place at a temperature, by tokens per second; the fastest comes first.

    Per token emitted: drafted tokens, those of them that were not kept, forwards of the target.
    target_busy, draft_busy: share of the time that each side works, where both work at once.
    relative: tokens per second beyond the fastest one's, with its paired interval.
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

    gap: difference of the target's two highest logits there. In low precision, forwards over one
    and over several tokens differ in the last bits, and near-ties can flip.
    """

    draft: str
    gamma: int
    prompt_key: str
    position: int
    gap: float


@dataclass(frozen=True)
class Summary:
    suite: str
    created: str
    prompts: int
    texts: int
    max_new_tokens: int
    confidence: float
    cells: list[Cell]
    baseline: list[Baseline]
    comparisons: list[Comparison]
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
    environment: dict[str, Any]
    definitions: dict[str, str]

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

    def best_by_category(self) -> list[CategoryCell]:
        """Of each draft, method and temperature the gamma that is recommended, one category after
        another.
        """
        best = {(o.draft, o.method, o.gamma, o.temperature) for o in self.recommendation}
        found = [o for o in self.categories if (o.draft, o.method, o.gamma, o.temperature) in best]
        names = list(dict.fromkeys(one.category for one in found))
        return sorted(found, key=lambda one: (one.temperature, names.index(one.category)))


# --- the file ------------------------------------------------------------------------------------


def write_summary(summary: Summary, path: Path) -> None:
    """Atomically; a number that does not exist (nan) is written as null."""
    atomic.write_json(path, _plain(summary))


def read_summary(path: Path) -> Summary:
    """The records of a summary.json; DistillSpecError if it is not one."""
    try:
        found = _record(Summary, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DistillSpecError(
            f"no summary of an evaluation can be read: {error}",
            where=str(path),
            mend="run `python -m distillspec evaluate` again; it goes on from rows.jsonl",
        ) from error
    assert isinstance(found, Summary)
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _record(kind: Any, value: Any) -> Any:
    """The inverse of `_plain`, led by the type hints."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{f.name: _record(hints[f.name], value[f.name]) for f in fields(kind)})
    if get_origin(kind) is list:
        return [_record(get_args(kind)[0], item) for item in value]
    if get_origin(kind) is dict:
        return {key: _record(get_args(kind)[1], item) for key, item in value.items()}
    if kind is float:
        return float("nan") if value is None else float(value)
    if get_origin(kind) is UnionType and value is not None:
        return _record(next(part for part in get_args(kind) if part is not NoneType), value)
    return value
