"""Numbers of one cell of an evaluation: one draft, method, gamma and temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from distillspec.measure.stats.intervals import Interval


class CellKey(NamedTuple):
    """Which cell of an evaluation's grid."""

    draft: str
    method: str
    gamma: int
    temperature: float


@dataclass(frozen=True)
class InCell:
    """Base of the records about one cell."""

    draft: str
    method: str
    gamma: int
    temperature: float

    @property
    def key(self) -> CellKey:
        return CellKey(self.draft, self.method, self.gamma, self.temperature)


@dataclass(frozen=True)
class Cell(InCell):
    """The numbers of a cell. DEFINITIONS defines every quantity."""

    prompts: int
    texts: int
    alpha: Interval
    alpha_argmax: Interval
    tau: Interval
    expected_tau: Interval
    tau_iid: float
    draft_acceptance: float
    acceptance_by_position: list[float]
    draft_steps: float
    draft_to_target_time: float
    v: float
    predicted_speedup: float
    predicted_from_alpha: float
    speedup: Interval
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

    Attributes:
        step_spread: Distance between the quartiles of an isolated step's times over their median;
            the largest of all kinds of steps.
        entropy_nats: Entropy per token of the target's text, at this temperature (at 0: at
            temperature 1).
        after_end_share: Share of the timed tokens after an end-of-text.
    """

    temperature: float
    prompts: int
    tokens_per_second: Interval
    prefill_seconds: float
    target_step_seconds: float
    step_spread: float
    entropy_nats: float
    after_end_share: float
    repeated_ngram_share: float | None


@dataclass(frozen=True)
class CategoryCell(InCell):
    """A cell on the prompts of one category. Counts are of complete rounds.

    With fewer than FEW prompts, rates and intervals are nan.
    """

    category: str
    prompts: int
    drafted: int
    accepted: int
    emitted: int
    verifications: int
    draft_acceptance: Interval
    tau: Interval
    speedup: Interval


@dataclass(frozen=True)
class ContextBin(InCell):
    """A cell's complete rounds with from_tokens <= tokens of prompt and output < to_tokens.

    Attributes:
        prompts: Number of prompts with such a round. With fewer than FEW, the acceptance is nan.
    """

    from_tokens: int
    to_tokens: int
    prompts: int
    rounds: int
    drafted: int
    accepted: int
    draft_acceptance: Interval
