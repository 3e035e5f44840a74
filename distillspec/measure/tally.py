"""Rows, step times and acceptance become the numbers of the summary: the one place that divides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from distillspec.measure import bootstrap, cost_model
from distillspec.measure.bootstrap import Interval, Resampling, Sums
from distillspec.measure.breakdown import CategoryCell, ContextBin, by_category, by_context
from distillspec.measure.completions import repeated_share, up_to_end
from distillspec.measure.oracle import shortened
from distillspec.measure.rows import Row
from distillspec.measure.summary import (
    Baseline,
    Cell,
    Comparison,
    Oracle,
    Quantity,
    Ranked,
    Recommendation,
    Verdict,
)
from distillspec.measure.summary import Place as RankedPlace
from distillspec.measure.target_texts import TextFacts
from distillspec.measure.timing import StepTimes
from distillspec.speculation.records import Counts

Place = tuple[str, str, int, float]
"""Draft, method, gamma, temperature."""


class Tally:
    """All rows of an evaluation, looked at by cell; prompts stand in one fixed order."""

    def __init__(
        self,
        rows: Sequence[Row],
        steps: Mapping[tuple[str, float], StepTimes],
        facts: Mapping[float, TextFacts],
        how: Resampling,
        ends: frozenset[int],
        standard: frozenset[str] = frozenset({"standard"}),
    ) -> None:
        """steps: by method and temperature. facts: by temperature. ends: what ends a text.

        standard: names of methods that verify chains of fixed length token by token, of which alone
        the expected tau is known. A method that chooses has no steps of its own.
        """
        self._steps, self._facts, self._how, self._ends = steps, facts, how, ends
        self._standard = standard
        self._prompts = sorted({row.prompt for row in rows})
        self._plain: dict[float, dict[int, list[Row]]] = {}
        self._cells: dict[Place, dict[int, list[Row]]] = {}
        for row in rows:
            if row.draft is None or row.method is None or row.gamma is None:
                by_prompt = self._plain.setdefault(row.temperature, {})
            else:
                place = (row.draft, row.method, row.gamma, row.temperature)
                by_prompt = self._cells.setdefault(place, {})
            by_prompt.setdefault(row.prompt, []).append(row)
        # Blocks rotate their order; cells are told draft by draft, gammas rising.
        drafts = [name for one in facts.values() for name in one.overlap]
        in_order = sorted(self._cells, key=lambda at: (drafts.index(at[0]), at[1], at[3], at[2]))
        self._cells = {place: self._cells[place] for place in in_order}

    def places(self) -> list[Place]:
        return list(self._cells)

    def cells(self) -> list[Cell]:
        return [self._cell(place) for place in self._cells]

    def _cell(self, place: Place) -> Cell:
        draft, method, gamma, temperature = place
        counts = sum((c for c in self._counts(place)), start=Counts())
        steps = self._steps.get((method, temperature))
        c = v = cap_speedup = tau_iid = from_alpha = math.nan
        cap_gamma = gamma
        break_even: float | None = None
        if steps is not None:
            c, v = steps.draft_to_target_time(draft), steps.verify_time(gamma)
        tau = bootstrap.ratio(self.tau(place), self._how)
        facts = self._facts[temperature]
        alpha = bootstrap.ratio(facts.alpha(draft), self._how)
        expected = Interval(math.nan, math.nan, math.nan)
        if steps is not None and method in self._standard:
            expected = bootstrap.ratio(facts.expected_tau(draft, gamma), self._how)
            tau_iid = cost_model.tau_iid(alpha.value, gamma)
            from_alpha = cost_model.speedup_iid(alpha.value, gamma, c, v)
            cap_gamma, cap_speedup = cost_model.perfect_draft_cap(c, steps.verify_times())
            break_even = cost_model.break_even_alpha(c, steps.verify_times())
        speedup = bootstrap.ratio(self.speedup(place), self._how)
        predicted = cost_model.predicted_speedup(tau.value, counts.draft_steps_per_round(), c, v)
        tokens, seconds = self.speed(place)
        return Cell(
            draft=draft,
            method=method,
            gamma=gamma,
            temperature=temperature,
            prompts=len(self._prompts),
            texts=len(facts.tokens),
            alpha=alpha.value,
            alpha_low=alpha.low,
            alpha_high=alpha.high,
            tau=tau.value,
            tau_low=tau.low,
            tau_high=tau.high,
            expected_tau=expected.value,
            expected_tau_low=expected.low,
            expected_tau_high=expected.high,
            tau_iid=tau_iid,
            draft_acceptance=counts.draft_acceptance(),
            acceptance_by_position=[counts.acceptance_at(i) for i in range(gamma)],
            draft_steps=counts.draft_steps_per_round(),
            draft_to_target_time=c,
            v=v,
            predicted_speedup=predicted,
            predicted_from_alpha=from_alpha,
            speedup=speedup.value,
            speedup_low=speedup.low,
            speedup_high=speedup.high,
            speedup_with_prefill=self._speedup_with_prefill(place).ratio(),
            measured_over_predicted=speedup.value / predicted,
            tokens_per_second=sum(tokens) / sum(seconds),
            break_even_alpha=break_even,
            perfect_draft_cap=cap_speedup,
            perfect_draft_gamma=cap_gamma,
            repeated_ngram_share=self._repeated(self._cells[place], temperature),
        )

    def categories(self) -> list[CategoryCell]:
        """Every cell by the prompts' categories; empty where they have less than two."""
        of = {row.prompt: row.category for some in self._cells.values() for row in _all(some)}
        names = [of.get(prompt) for prompt in self._prompts]
        return [
            one
            for place in self._cells
            for one in by_category(
                place,
                names,
                self._kept(place),
                self.tau(place),
                self.speedup(place),
                self._how,
            )
        ]

    def contexts(self) -> list[ContextBin]:
        """Every cell by how much stood before the draft."""
        return [
            one for place, rows in self._cells.items() for one in by_context(place, rows, self._how)
        ]

    def baselines(self) -> list[Baseline]:
        return [self._baseline(temperature) for temperature in sorted(self._plain)]

    def _baseline(self, temperature: float) -> Baseline:
        by_prompt, facts = self._plain[temperature], self._facts[temperature]
        rows = [row for some in by_prompt.values() for row in some]
        tokens = [float(sum(len(r.tokens) for r in by_prompt[i])) for i in self._prompts]
        seconds = [sum(r.seconds for r in by_prompt[i]) for i in self._prompts]
        speed = bootstrap.ratio(Sums(tokens, seconds), self._how)
        steps = next((s for (_, at), s in self._steps.items() if at == temperature), None)
        return Baseline(
            temperature=temperature,
            prompts=len(self._prompts),
            tokens_per_second=speed.value,
            tokens_per_second_low=speed.low,
            tokens_per_second_high=speed.high,
            prefill_seconds=sum(row.prefill_seconds for row in rows) / len(rows),
            target_step_seconds=steps.target_seconds if steps else math.nan,
            step_spread=steps.spread if steps else math.nan,
            entropy_nats=Sums(facts.entropy, facts.tokens).ratio(),
            after_end_share=1.0 - _mean([self._before_end(row) / len(row.tokens) for row in rows]),
            repeated_ngram_share=self._repeated(by_prompt, temperature),
        )

    def _before_end(self, row: Row) -> int:
        return len(up_to_end(row.tokens, self._ends))

    # --- sums over prompts -----------------------------------------------------------------------

    def tau(self, place: Place) -> Sums:
        counts = self._counts(place)
        return Sums([c.emitted for c in counts], [c.verifications for c in counts])

    def _kept(self, place: Place) -> Sums:
        counts = self._counts(place)
        return Sums([c.accepted for c in counts], [c.drafted for c in counts])

    def speed(self, place: Place) -> Sums:
        """Tokens over seconds, prefill apart."""
        by_prompt = self._cells[place]
        return Sums(
            [float(sum(len(row.tokens) for row in by_prompt[i])) for i in self._prompts],
            [sum(row.seconds for row in by_prompt[i]) for i in self._prompts],
        )

    def speedup(self, place: Place) -> Sums:
        """Mean seconds of the baseline over mean seconds of the cell, of equally long texts."""
        plain, cell = self._plain[place[3]], self._cells[place]
        return Sums(
            [_mean([row.seconds for row in plain[i]]) for i in self._prompts],
            [_mean([row.seconds for row in cell[i]]) for i in self._prompts],
        )

    def _speedup_with_prefill(self, place: Place) -> Sums:
        plain, cell = self._plain[place[3]], self._cells[place]
        return Sums(
            [_mean([row.seconds + row.prefill_seconds for row in plain[i]]) for i in self._prompts],
            [_mean([row.seconds + row.prefill_seconds for row in cell[i]]) for i in self._prompts],
        )

    def _counts(self, place: Place) -> list[Counts]:
        by_prompt = self._cells[place]
        return [sum((row.counts for row in by_prompt[i]), start=Counts()) for i in self._prompts]

    def _repeated(self, by_prompt: Mapping[int, list[Row]], temperature: float) -> float | None:
        if temperature > 0.0:
            return None
        return repeated_share(by_prompt[i][0].tokens for i in self._prompts)

    # --- drafts against each other ---------------------------------------------------------------

    def comparisons(self, draft: str, against: Sequence[str]) -> list[Comparison]:
        """`draft` against each other one: on the target's texts, then tau and speed per cell."""
        found = []
        mine = [place for place in self._cells if place[0] == draft]
        for other in against:
            for temperature in sorted({place[3] for place in mine}):
                facts = self._facts[temperature]
                whole = (draft, other, None, None, temperature)
                found.append(self._compared("alpha", whole, facts.alpha(draft), facts.alpha(other)))
                for gamma in sorted({place[2] for place in mine if place[1] in self._standard}):
                    found.append(
                        self._compared(
                            "expected tau",
                            (draft, other, None, gamma, temperature),
                            facts.expected_tau(draft, gamma),
                            facts.expected_tau(other, gamma),
                        )
                    )
            for place in mine:
                theirs = (other, *place[1:])
                if theirs in self._cells:
                    here = (draft, other, *place[1:])
                    found.append(self._compared("tau", here, self.tau(place), self.tau(theirs)))
                    found.append(
                        self._compared("speed", here, self.speed(place), self.speed(theirs))
                    )
        return found

    def _compared(
        self,
        quantity: Quantity,
        where: tuple[str, str, str | None, int | None, float],
        one: Sums,
        other: Sums,
    ) -> Comparison:
        draft, against, method, gamma, temperature = where
        difference = bootstrap.difference(one, other, self._how)
        relative = bootstrap.relative(one, other, self._how)
        return Comparison(
            quantity=quantity,
            draft=draft,
            against=against,
            method=method,
            gamma=gamma,
            temperature=temperature,
            prompts=len(one.numerators),
            value=one.ratio(),
            against_value=other.ratio(),
            difference=difference.value,
            low=difference.low,
            high=difference.high,
            relative=relative.value,
            relative_low=relative.low,
            relative_high=relative.high,
            verdict=_verdict(difference),
        )

    # --- methods against each other --------------------------------------------------------------

    def ranking(self) -> list[Ranked]:
        """All cells of a temperature by tokens per second; empty where there is one method."""
        if len({place[1] for place in self._cells}) < 2:
            return []
        found = []
        for temperature in sorted(self._plain):
            here = [place for place in self._cells if place[3] == temperature]
            here.sort(key=lambda place: -self.speed(place).ratio())
            found += [self._ranked(place, here[0]) for place in here]
        return found

    def _ranked(self, place: Place, fastest: Place) -> Ranked:
        draft, method, gamma, temperature = place
        counts = sum((c for c in self._counts(place)), start=Counts())
        beyond = bootstrap.relative(self.speed(place), self.speed(fastest), self._how)
        verdict: RankedPlace = "slower" if beyond.high < 0.0 else "within noise of it"
        return Ranked(
            draft=draft,
            method=method,
            gamma=gamma,
            temperature=temperature,
            tokens_per_second=self.speed(place).ratio(),
            tau=self.tau(place).ratio(),
            drafted_per_token=_share(counts.drafted, counts.emitted),
            wasted_per_token=_share(counts.drafted - counts.accepted, counts.emitted),
            forwards_per_token=_share(counts.verifications, counts.emitted),
            target_busy=self._share_of_time(place, lambda row: row.target_busy_seconds),
            draft_busy=self._share_of_time(place, lambda row: row.draft_busy_seconds),
            relative=beyond.value,
            relative_low=beyond.low,
            relative_high=beyond.high,
            verdict="fastest" if place == fastest else verdict,
        )

    def _share_of_time(self, place: Place, busy: Callable[[Row], float | None]) -> float:
        """nan where one process does it all."""
        rows = [row for some in self._cells[place].values() for row in some]
        seconds = sum(math.nan if (one := busy(row)) is None else one for row in rows)
        return seconds / sum(row.seconds for row in rows)

    def oracles(self) -> list[Oracle]:
        """A line a draft and temperature, where methods are ranked and chains are among them."""
        found = []
        for first in self.ranking():
            at = first.temperature
            if first.verdict != "fastest":
                continue
            fastest = (first.draft, first.method, first.gamma, at)
            for draft in dict.fromkeys(place[0] for place in self._cells if place[3] == at):
                chains = [
                    place
                    for place in self._cells
                    if place[0] == draft and place[1] in self._standard and place[3] == at
                ]
                if chains:
                    found.append(self._oracle(max(chains, key=lambda one: one[2]), fastest))
        return found

    def _oracle(self, place: Place, fastest: Place) -> Oracle:
        draft, method, gamma, temperature = place
        steps = self._steps[method, temperature]
        tokens, seconds = self.speed(place)
        c, v = steps.draft_to_target_time(draft), steps.verify_times()
        by_prompt = self._counts(place)
        shares = [shortened(counts, gamma, c, v) for counts in by_prompt]
        speed = Sums(tokens, [s * share for s, share in zip(seconds, shares, strict=True)])
        beyond = bootstrap.relative(speed, self.speed(fastest), self._how)
        counts = sum(by_prompt, start=Counts())
        return Oracle(
            draft=draft,
            method=method,
            gamma=gamma,
            temperature=temperature,
            tokens_per_second=speed.ratio(),
            tau=self.tau(place).ratio(),
            drafted_per_token=_share(counts.accepted, counts.emitted),
            forwards_per_token=_share(counts.verifications, counts.emitted),
            relative=beyond.value,
            relative_low=beyond.low,
            relative_high=beyond.high,
        )

    # --- which gamma -----------------------------------------------------------------------------

    def recommendations(self) -> list[Recommendation]:
        """Per draft and method: the best gamma at each temperature, and over all of them."""
        found = []
        for draft, method in dict.fromkeys(place[:2] for place in self._cells):
            temperatures = sorted({p[3] for p in self._cells if p[:2] == (draft, method)})
            for at in (*temperatures, None):
                found.append(
                    self._recommended(draft, method, at, temperatures if at is None else [at])
                )
        return found

    def _recommended(
        self, draft: str, method: str, at: float | None, temperatures: Sequence[float]
    ) -> Recommendation:
        gammas = sorted({place[2] for place in self._cells if place[:2] == (draft, method)})
        measured = {
            gamma: bootstrap.ratio(
                _added([self.speedup((draft, method, gamma, t)) for t in temperatures]), self._how
            )
            for gamma in gammas
        }
        gamma, best = max(measured.items(), key=lambda item: item[1].value)
        near = [g for g, interval in measured.items() if interval.high >= best.low]
        named = "" if method in self._standard else f"{method}, "
        words = f"{named}gamma {gamma}: {best.value:.2f}x [{best.low:.2f}, {best.high:.2f}]"
        if best.high < 1.0:
            words = f"do not speculate: slower than autoregressive at every gamma ({words})"
        elif best.low <= 1.0:
            words = f"no gain shown: the interval contains 1 ({words})"
        elif len(near) > 1:
            words += f"; within its interval: gamma {', '.join(map(str, near))}"
        return Recommendation(draft, method, at, gamma, best.value, best.low, best.high, words)


def _added(parts: Sequence[Sums]) -> Sums:
    """Prompt by prompt."""
    return Sums(
        [sum(values) for values in zip(*(part.numerators for part in parts), strict=True)],
        [sum(values) for values in zip(*(part.denominators for part in parts), strict=True)],
    )


def _all(by_prompt: Mapping[int, Sequence[Row]]) -> Iterator[Row]:
    return chain.from_iterable(by_prompt.values())


def _share(count: int, of: int) -> float:
    """nan where no round was whole."""
    return count / of if of else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _verdict(difference: bootstrap.Interval) -> Verdict:
    if not difference.excludes(0.0):
        return "no difference shown"
    return "higher" if difference.low > 0.0 else "lower"
