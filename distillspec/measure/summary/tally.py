"""Sums over documents by cell, from rows, step times and acceptance; the cells' numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from distillspec.measure.exact.target_texts import TextFacts
from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import NOTHING, Sums, by_document
from distillspec.measure.summary.breakdown import by_category, by_context
from distillspec.measure.summary.cells import (
    Baseline,
    CategoryCell,
    Cell,
    CellKey,
    ContextBin,
)
from distillspec.measure.summary.completions import repeated_share
from distillspec.measure.timed.rows import CellRow
from distillspec.methods import cost_model
from distillspec.methods.step_times import StepTimes
from distillspec.speculation.limits import up_to_end
from distillspec.speculation.records import Counts


class Tally:
    """All rows of an evaluation by cell. Prompts are in one fixed order."""

    def __init__(
        self,
        rows: Sequence[CellRow],
        steps: Mapping[tuple[str, float], StepTimes],
        facts: Mapping[float, TextFacts],
        confidence: float,
        ends: frozenset[int],
        standard: frozenset[str] = frozenset({"standard"}),
    ) -> None:
        """Group the rows by cell.

        Args:
            rows: All rows, without those of a second time.
            steps: Step times by method and temperature; methods that choose have none.
            facts: Acceptance on the target's texts, by temperature.
            confidence: Confidence of the intervals.
            ends: Ids of tokens that end a text.
            standard: Names of methods that verify chains of fixed length token by token. Only
                these have an expected tau.
        """
        self.steps, self.facts, self.confidence, self._ends = steps, facts, confidence, ends
        self.standard = standard
        self._prompts = sorted({row.prompt for row in rows})
        document_of = {row.prompt: row.unit for row in rows}
        self._documents = [document_of[prompt] for prompt in self._prompts]
        self._plain: dict[float, dict[int, list[CellRow]]] = {}
        self._cells: dict[CellKey, dict[int, list[CellRow]]] = {}
        for row in rows:
            if row.draft is None or row.method is None or row.gamma is None:
                by_prompt = self._plain.setdefault(row.temperature, {})
            else:
                key = CellKey(row.draft, row.method, row.gamma, row.temperature)
                by_prompt = self._cells.setdefault(key, {})
            by_prompt.setdefault(row.prompt, []).append(row)
        # Blocks rotate their order; cells are sorted by draft, and by gamma within it.
        drafts = [name for text_facts in facts.values() for name in text_facts.overlap]
        in_order = sorted(
            self._cells,
            key=lambda at: (drafts.index(at.draft), at.method, at.temperature, at.gamma),
        )
        self._cells = {key: self._cells[key] for key in in_order}

    def cell_keys(self) -> list[CellKey]:
        return list(self._cells)

    def temperatures(self) -> list[float]:
        return sorted(self._plain)

    def rows(self, key: CellKey) -> list[CellRow]:
        return list(chain.from_iterable(self._cells[key].values()))

    def prompts(self) -> int:
        return len(self._prompts)

    def texts(self, temperature: float) -> int:
        """Number of the target's texts, which give alpha and expected tau."""
        return len(self.facts[temperature].tokens)

    def documents(self) -> int:
        return len(set(self._documents))

    def cells(self) -> list[Cell]:
        return [self._cell(key) for key in self._cells]

    def _cell(self, key: CellKey) -> Cell:
        draft, _, gamma, temperature = key
        # Counts are added up first, and rates are formed last.
        counts = sum((c for c in self.counts(key)), start=Counts())
        tau = intervals.ratio(self.tau(key), self.confidence).within(1.0, math.inf)
        facts = self.facts[temperature]
        alpha = intervals.ratio(facts.alpha(draft), self.confidence).within(0.0, 1.0)
        alpha_argmax = intervals.ratio(facts.alpha_argmax(draft), self.confidence)
        speedup = intervals.ratio(self.speedup(key), self.confidence)
        predicted = self._predicted(key, tau.value, counts)
        return Cell(
            *key,
            **self._model_of_cost(key, alpha.value),
            prompts=len(self._prompts),
            texts=len(facts.tokens),
            alpha=alpha,
            alpha_argmax=alpha_argmax.within(0.0, 1.0),
            tau=tau,
            draft_acceptance=counts.draft_acceptance(),
            acceptance_by_position=[counts.acceptance_at(i) for i in range(gamma)],
            draft_steps=counts.draft_steps_per_round(),
            predicted_speedup=predicted,
            speedup=speedup,
            speedup_with_prefill=self._speedup_with_prefill(key).ratio(),
            measured_over_predicted=speedup.value / predicted,
            tokens_per_second=self.speed(key).ratio(),
            repeated_ngram_share=self._repeated(self._cells[key], temperature),
        )

    def _predicted(self, key: CellKey, tau: float, counts: Counts) -> float:
        """The speed-up that the step times and the counted rounds predict; NaN without times."""
        steps = self.steps.get((key.method, key.temperature))
        if steps is None:
            return math.nan
        # Stop rules and lookups do not draft gamma tokens: take the mean numbers.
        return tau / steps.round_times(key.draft).between(
            counts.draft_steps_per_round(),
            counts.drafted_per_round(),
            counts.kept_at_least(key.gamma),
        )

    def _model_of_cost(self, key: CellKey, alpha: float) -> dict[str, Any]:
        """The cell's fields from the cost model and the target's texts.

        Those that hold for standard verification only are NaN for other methods.
        """
        draft, method, gamma, temperature = key
        steps = self.steps.get((method, temperature))
        c = v = cap_speedup = tau_iid = from_alpha = math.nan
        cap_gamma, break_even, expected = gamma, None, NOTHING
        if steps is not None:
            c, v = steps.draft_to_target_time(draft, gamma), steps.verify_time(gamma)
        if steps is not None and method in self.standard:
            facts = self.facts[temperature]
            expected = intervals.ratio(facts.expected_tau(draft, gamma), self.confidence)
            expected = expected.within(1.0, gamma + 1.0)
            tau_iid = cost_model.tau_iid(alpha, gamma)
            times = steps.round_times(draft)
            from_alpha = cost_model.speedup_iid(alpha, gamma, times)
            cap_gamma, cap_speedup = cost_model.perfect_draft_cap(times)
            break_even = cost_model.break_even_alpha(times)
        return {
            "expected_tau": expected,
            "tau_iid": tau_iid,
            "draft_to_target_time": c,
            "v": v,
            "predicted_from_alpha": from_alpha,
            "break_even_alpha": break_even,
            "perfect_draft_cap": cap_speedup,
            "perfect_draft_gamma": cap_gamma,
        }

    def categories(self) -> list[CategoryCell]:
        """Every cell by category of the prompts; empty with fewer than two categories."""
        of = {row.prompt: row.category for key in self._cells for row in self.rows(key)}
        names = [of.get(prompt) for prompt in self._prompts]
        return [
            cell
            for key in self._cells
            for cell in by_category(
                key,
                names,
                self._documents,
                (self._kept(key), self._rounds(key), self._times(key)),
                self.confidence,
            )
        ]

    def contexts(self) -> list[ContextBin]:
        """Every cell by length of the context."""
        return [
            context_bin
            for key, rows in self._cells.items()
            for context_bin in by_context(key, rows, self.confidence)
        ]

    def baselines(self) -> list[Baseline]:
        return [self._baseline(temperature) for temperature in self.temperatures()]

    def _baseline(self, temperature: float) -> Baseline:
        by_prompt, facts = self._plain[temperature], self.facts[temperature]
        rows = [row for some in by_prompt.values() for row in some]
        tokens = [float(sum(len(r.tokens) for r in by_prompt[i])) for i in self._prompts]
        seconds = [sum(r.seconds for r in by_prompt[i]) for i in self._prompts]
        speed = intervals.ratio(self.by_document(Sums(tokens, seconds)), self.confidence)
        by_method = {name: s for (name, at), s in self.steps.items() if at == temperature}
        # Otherwise in their order.
        names = sorted(by_method, key=lambda name: name not in self.standard)
        steps = by_method[names[0]] if names else None
        return Baseline(
            temperature=temperature,
            prompts=len(self._prompts),
            tokens_per_second=speed,
            prefill_seconds=sum(row.prefill_seconds for row in rows) / len(rows),
            target_step_seconds=steps.target_seconds if steps else math.nan,
            step_spread=steps.spread if steps else math.nan,
            entropy_nats=Sums(facts.entropy, facts.tokens).ratio(),
            after_end_share=1.0 - _mean([self._before_end(row) / len(row.tokens) for row in rows]),
            repeated_ngram_share=self._repeated(by_prompt, temperature),
        )

    def _before_end(self, row: CellRow) -> int:
        return len(up_to_end(row.tokens, self._ends)[0])

    # --- sums over documents ---------------------------------------------------------------------

    def by_document(self, sums: Sums) -> Sums:
        """Sums over prompts, added up by document."""
        return by_document(sums, self._documents)

    def tau(self, key: CellKey) -> Sums:
        return self.by_document(self._rounds(key))

    def speed(self, key: CellKey) -> Sums:
        """Tokens over seconds, without the prefill."""
        return self.by_document(self.speed_by_prompt(key))

    def speedup(self, key: CellKey) -> Sums:
        """Mean seconds of the baseline over mean seconds of the cell, for texts of equal length."""
        return self.by_document(self._times(key))

    # --- sums over prompts -----------------------------------------------------------------------

    def _rounds(self, key: CellKey) -> Sums:
        counts = self.counts(key)
        return Sums([c.emitted for c in counts], [c.verifications for c in counts])

    def _kept(self, key: CellKey) -> Sums:
        counts = self.counts(key)
        return Sums([c.accepted for c in counts], [c.drafted for c in counts])

    def speed_by_prompt(self, key: CellKey) -> Sums:
        by_prompt = self._cells[key]
        return Sums(
            [float(sum(len(row.tokens) for row in by_prompt[i])) for i in self._prompts],
            [sum(row.seconds for row in by_prompt[i]) for i in self._prompts],
        )

    def _times(self, key: CellKey) -> Sums:
        plain, cell = self._plain[key.temperature], self._cells[key]
        # Means, because the baseline is timed once more than the cell.
        return Sums(
            [_mean([row.seconds for row in plain[i]]) for i in self._prompts],
            [_mean([row.seconds for row in cell[i]]) for i in self._prompts],
        )

    def _speedup_with_prefill(self, key: CellKey) -> Sums:
        plain, cell = self._plain[key.temperature], self._cells[key]
        return Sums(
            [_mean([row.seconds + row.prefill_seconds for row in plain[i]]) for i in self._prompts],
            [_mean([row.seconds + row.prefill_seconds for row in cell[i]]) for i in self._prompts],
        )

    def counts(self, key: CellKey) -> list[Counts]:
        """Counts of each prompt, summed over its repeats."""
        by_prompt = self._cells[key]
        return [sum((row.counts for row in by_prompt[i]), start=Counts()) for i in self._prompts]

    def _repeated(self, by_prompt: Mapping[int, list[CellRow]], temperature: float) -> float | None:
        # Only greedy text is checked for loops, which make alpha and tau too high.
        if temperature > 0.0:
            return None
        return repeated_share(by_prompt[i][0].tokens for i in self._prompts)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
