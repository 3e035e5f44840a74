"""The verb `compare`: variants of a recipe, trained at equal cost, measured on the same texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from distillspec.assembly.identity import IDENTITY, check_identity, pair_identity, text_identity
from distillspec.assembly.pair import load_pair, prepare_process
from distillspec.assembly.text import pair_prompts
from distillspec.errors import DistillSpecError
from distillspec.measure.summary.variants import (
    MeasuredVariant,
    VariantStanding,
    markdown,
    standings,
    tables,
)
from distillspec.measure.summary.variants_file import ComparisonRound, RoundTable, write_round
from distillspec.models.loading.precision import describe
from distillspec.recipe.comparison import UNDISTILLED, ComparisonConfig
from distillspec.recipe.output import RUNS
from distillspec.runtime import atomic, provenance
from distillspec.runtime.lock import run_lock
from distillspec.runtime.processes import join
from distillspec.runtime.terminal import Terminal
from distillspec.workflows.compare_measure import HOME, VariantMeasure
from distillspec.workflows.compare_train import VariantTraining
from distillspec.workflows.compare_variants import checked_variants, variant_recipe

console = Terminal(soft_wrap=True)


def run(comparison: ComparisonConfig) -> int:
    """Train and measure what is missing, then print and write the tables.

    Raises:
        DistillSpecError: Several processes were started, a variant may not be compared, or the
            folder holds a comparison of another target or other prompts.
    """
    if join().size > 1:
        raise DistillSpecError(
            "a comparison trains in one process",
            where=f"comparison {comparison.name}",
            fix="start it without NPROC",
        )
    checked_variants(comparison)
    folder = RUNS / "compare" / comparison.name
    atomic.make_folder(folder)
    with run_lock(folder):
        _Comparison(comparison, folder).run()
    return 0


class _Comparison:
    """A comparison in its folder: which variants train in which round, and what is printed."""

    def __init__(self, plan: ComparisonConfig, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        # Target and data are the same for all variants, so they are loaded once.
        recipe = variant_recipe(plan, plan.against, plan.seeds[0], {})
        prepare_process(recipe)
        self.pair = load_pair(recipe)
        self.prompts = pair_prompts(self.pair)
        # Before the target draws its texts, which takes long.
        self._check_start()
        self.measure = VariantMeasure(plan, self.pair, self.prompts.held_out)
        self.training = VariantTraining(plan, folder, self.pair, self.prompts, self.measure)

    def run(self) -> None:
        atomic.write_json(self.folder / "provenance.json", dataclasses.asdict(provenance.gather()))
        console.print(f"{self.folder}: {describe(self.pair.device)}")
        undistilled = self.measure.measure(self.pair.draft(), self.pair, None)
        # 1. All variants with all seeds.
        first = self._round("first", list(self.plan.variants), self.plan.minutes, self.plan.seeds)
        first[UNDISTILLED] = [undistilled]
        self._report("first", first, self.plan.minutes, self.plan.seeds)
        finals = self.plan.finals
        if finals is None:
            return
        # 2. The best variants and the baseline again, longer.
        order = [standing.variant for standing in self._standings(first, HOME)]
        best = [name for name in order if name != UNDISTILLED][: finals.count]
        names = [*dict.fromkeys([self.plan.against, *best])]
        last = self._round("finals", names, finals.minutes, finals.seeds)
        last[UNDISTILLED] = [undistilled]
        self._report("finals", last, finals.minutes, finals.seeds)

    def _check_start(self) -> None:
        """Check that the target and the prompts are those of earlier starts."""
        path = self.folder / IDENTITY
        models = pair_identity(self.pair, path).without("draft", "draft_tokenizer")
        check_identity(path, models, has_trained=False)
        check_identity(path, text_identity(self.prompts, self.plan.recipe), has_trained=False)

    def _round(
        self, name: str, variants: Sequence[str], minutes: float, seeds: Sequence[int]
    ) -> dict[str, list[MeasuredVariant]]:
        """Train and measure some variants with each seed; the results are in order of seeds."""
        measured: dict[str, list[MeasuredVariant]] = {variant: [] for variant in variants}
        # Seeds come first, so that an interrupted comparison has measured all variants equally.
        for seed in seeds:
            for variant in self.plan.variants:
                if variant in variants:
                    run_folder = self.folder / name / variant / f"seed-{seed}"
                    measured[variant].append(self.training.run(run_folder, variant, seed, minutes))
        return measured

    def _standings(
        self, runs: dict[str, list[MeasuredVariant]], kind: str
    ) -> list[VariantStanding]:
        return standings(runs, self.plan.against, kind, self.plan.confidence)

    def _report(
        self,
        name: str,
        runs: dict[str, list[MeasuredVariant]],
        minutes: float,
        seeds: Sequence[int],
    ) -> None:
        """Print and write the tables of a round, one for each kind of prompts."""
        against, confidence = self.plan.against, self.plan.confidence
        parts, measured = [], []
        for kind, (texts, documents) in self.measure.texts.items():
            ranking = self._standings(runs, kind)
            title = (
                f"{name}: {kind} prompts, {len(texts)} texts of {len(set(documents))} documents, "
                f"T = {self.measure.policy.temperature:g}, gamma {self.plan.gamma}; "
                f"{minutes:g} minutes each, {len(seeds)} seeds"
            )
            for table in tables(title, ranking, against, confidence):
                console.print(table)
            parts.append(f"### {title}\n\n{markdown(ranking, against, confidence)}")
            measured.append(RoundTable(kind, len(texts), len(set(documents)), ranking))
        result = ComparisonRound(
            comparison=self.plan.name,
            round=name,
            minutes=minutes,
            seeds=list(seeds),
            temperature=self.measure.policy.temperature,
            gamma=self.plan.gamma,
            against=against,
            confidence=confidence,
            tables=measured,
            plan=self.plan.model_dump(mode="json"),
            environment={
                **dataclasses.asdict(provenance.gather()),
                "threads": torch.get_num_threads(),
            },
        )
        write_round(result, self.folder / f"{name}.json")
        path = self.folder / f"{name}.md"
        atomic.write_text(path, "\n".join(parts))
        console.print(f"written: {path}")
