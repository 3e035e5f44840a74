"""What longer training gains: expected tau and alpha against minutes, at several temperatures.

    for m in 1 2 5 15 60; do ./launch.sh compare curve minutes=$m name=curve-$m; done
    python eval/bench/curve.py checkpoints/runs/compare/curve-* --temperatures 0 1

Each folder is one of `compare`, or one run; each point is a training whose learning rate went down
at its end. Folders of equal minutes add up: variants that were trained at the same time on separate
cores. All drafts are measured on the same texts, which the target draws at each temperature.

Four points or more get a fitted curve (`fitted_curve.py`), which is read beyond the last one.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import fitted_curve
import result_file
import torch

from distillspec.assembly.pair import ModelPair, load_pair, prepare_process, with_draft_of
from distillspec.assembly.target_data import target_responses
from distillspec.assembly.text import pair_prompts
from distillspec.assembly.trimmed_head import with_head
from distillspec.errors import DistillSpecError
from distillspec.measure.summary.records import DISTILLED
from distillspec.measure.summary.variants import MeasuredVariant, VariantStanding, standings
from distillspec.measure.summary.variants_file import read_round
from distillspec.models.loading.precision import describe
from distillspec.models.surgery.adapters import merged
from distillspec.recipe.comparison import UNDISTILLED, ComparisonConfig
from distillspec.recipe.data import DataConfig
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime.processes import join
from distillspec.training.resume import BEST, load_best
from distillspec.workflows.compare_measure import HOME, VariantMeasure
from distillspec.workflows.run import read_head
from distillspec.workflows.run_folder import RunFolder

_BEYOND = (2.0, 4.0)  # the fit is read at so many times the longest training
_COMPARISON = "first.json"
_CONTROL = "control"


class Trained(NamedTuple):
    """The runs of one variant, one for each seed."""

    minutes: float
    variant: str
    folders: list[Path]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, help="comparisons and runs that have ended"
    )
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--control", default=_CONTROL, help="the variant to compare with")
    parser.add_argument("--texts", type=int, default=128, help="held-out prompts")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of each text")
    parser.add_argument("--gamma", type=int, default=4, help="block size of tau")
    result_file.add_argument(parser)
    arguments = parser.parse_args()
    # 1. The runs, and the pair and the text that they share.
    plan = ComparisonConfig(
        kind="comparison",
        recipe="",
        minutes=1,
        variants={DISTILLED: {}},
        texts=arguments.texts,
        gamma=arguments.gamma,
        max_new_tokens=arguments.new_tokens,
    )
    runs = _runs(arguments.folders)
    recipe = _recipe_of(runs[0].folders[0])
    prepare_process(recipe)
    pair = load_pair(recipe)
    drafts = _Drafts(pair)
    print(f"{describe(pair.device)}; {torch.get_num_threads()} threads")
    # 2. Measure every draft at each temperature.
    tables, documents = {}, 0
    for at in arguments.temperatures:
        measure = VariantMeasure(plan, _at(pair, at), drafts.prompts.held_out)
        documents = len(set(measure.texts[HOME].documents))
        start = measure.measure(pair.draft(), pair, None)
        points = []
        for minutes, group in itertools.groupby(runs, lambda run: run.minutes):
            measured = {run.variant: drafts.measured(run, measure) for run in group}
            base = arguments.control if arguments.control in measured else UNDISTILLED
            ranked = standings({**measured, UNDISTILLED: [start]}, base, HOME, plan.confidence)
            points.append((minutes, {one.variant: one for one in ranked}))
        curve, fits = _rows(points, arguments.control), _fits(points, plan.gamma)
        for title, rows in ((f"T = {at:g}", curve), (f"fitted, T = {at:g}", fits)):
            if rows:
                tables[title] = rows
                print(f"\n{title}\n\n{result_file.markdown(rows)}")
    result_file.write("curve", arguments, tables, documents)


def _at(pair: ModelPair, temperature: float) -> ModelPair:
    """The pair with a recipe whose temperature is this one; 0 is allowed, nothing is trained."""
    distill = pair.recipe.distill.model_copy(update={"temperature": temperature})
    return dataclasses.replace(pair, recipe=pair.recipe.model_copy(update={"distill": distill}))


def _runs(folders: Sequence[Path]) -> list[Trained]:
    """All variants of all comparisons, the shortest training first."""
    found: dict[tuple[float, str], list[Path]] = {}
    for folder in folders:
        if not (folder / _COMPARISON).exists():
            recipe = _recipe_of(folder)
            minutes = recipe.distill.max_minutes
            if minutes is None:
                raise DistillSpecError(
                    "this run was not ended by its minutes",
                    where=str(folder),
                    fix="give runs with distill.max_minutes",
                )
            name = _CONTROL if set(recipe.distill.terms) == {"nll"} else DISTILLED
            found.setdefault((minutes, name), []).append(folder)
            continue
        result = read_round(folder / _COMPARISON)
        for standing in result.tables[0].standings:
            if standing.variant != UNDISTILLED:
                runs = found.setdefault((result.minutes, standing.variant), [])
                runs += [folder / "first" / standing.variant / f"seed-{s}" for s in result.seeds]
    return [Trained(minutes, name, found[minutes, name]) for minutes, name in sorted(found)]


def _recipe_of(run: Path) -> Recipe:
    recipe = load_recipe(run / "recipe.yaml", is_stored=True)
    assert isinstance(recipe, Recipe)
    return recipe


def _texts(recipe: Recipe) -> DataConfig:
    """What the held-out prompts depend on, and the text that a trimmed head is counted in."""
    # A longer training may have more prompts of the same source.
    is_free = recipe.pair.draft_head is None
    return recipe.data.model_copy(update={"max_prompts": None}) if is_free else recipe.data


class _Drafts:
    """The trained drafts of runs that share a target and its text."""

    def __init__(self, pair: ModelPair) -> None:
        self._pair = pair
        self.prompts = pair_prompts(pair)
        stored = "target" in pair.recipe.distill.stored
        training = self.prompts.training
        # The runs of a comparison do not store a trimmed head: it is counted again in this text.
        self._responses = target_responses(pair, training, join()).by_key if stored else None

    def measured(self, run: Trained, measure: VariantMeasure) -> list[MeasuredVariant]:
        found = []
        for folder in run.folders:
            recipe, first = _recipe_of(folder), self._pair.recipe
            if recipe.pair.target != first.pair.target or _texts(recipe) != _texts(first):
                raise DistillSpecError(
                    "this run has another target or other data: it may have learned the texts that "
                    "are measured here",
                    where=str(folder),
                    fix="give folders of one pair and one set of prompts",
                )
            pair, head = with_draft_of(self._pair, recipe), RunFolder(folder).head_file
            if head.exists():
                pair = pair.trimmed_to(read_head(head, pair.vocab_size).tokens)
            else:
                pair = with_head(pair, self.prompts.training, self._responses)
            trained = pair.trainable_draft()
            load_best(trained, folder / BEST)
            found.append(measure.measure(merged(trained), pair, None))
        return found


Point = tuple[float, Mapping[str, VariantStanding]]


def _rows(points: Sequence[Point], control: str) -> list[result_file.Row]:
    _, first = points[0]
    rows = [_row(0.0, first[UNDISTILLED], control, False)]
    for minutes, of in points:
        rows += [
            _row(minutes, of[name], control, name != control and control in of)
            for name in sorted(of.keys() - {UNDISTILLED})
        ]
    return rows


def _row(
    minutes: float, standing: VariantStanding, control: str, is_compared: bool
) -> result_file.Row:
    return {
        "minutes": minutes,
        "draft": standing.variant,
        "alpha": standing.alpha,
        "expected tau": standing.tau,
        f"over {control}, %": result_file.percent(standing.relative) if is_compared else None,
        "verdict": standing.verdict if is_compared else "",
    }


def _fits(points: Sequence[Point], gamma: int) -> list[result_file.Row]:
    rows: list[result_file.Row] = []
    longest = max(minutes for minutes, _ in points)
    names = sorted({name for _, of in points for name in of} - {UNDISTILLED})
    start = points[0][1][UNDISTILLED].tau.value
    for name in names:
        taus = [(minutes, of[name].tau.value) for minutes, of in points if name in of]
        found = fitted_curve.fit(start, taus, gamma + 1.0)
        if found is None or math.isnan(found.limit):
            continue
        row: dict[str, result_file.Value] = {
            "draft": name,
            "limit a": found.limit,
            "h, minutes": found.half,
            "k": found.power,
            "largest residual": found.residual,
        }
        for times in _BEYOND:
            row[f"tau after {times * longest:g} minutes"] = found.at(times * longest)
        rows.append(row)
    return rows


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(str(error))
