"""What drafts that are made of a target cost: c, break-even alpha and cap of every shape.

    python eval/bench/made_drafts.py                        # shapes of suites/made-drafts.yaml
    python eval/bench/made_drafts.py --trained FIRST.json   # with what that comparison reached

The shapes are the variants of a comparison. All drafts and the target are timed in turns, in one
process, in whole rounds of the engine. A trimmed head is counted on the target's stored text, as
in training. `highest alpha` is the target's mass on the tokens that the draft scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import result_file
import torch

from distillspec.assembly.pair import (
    ModelPair,
    dtype_of,
    load_pair,
    prepare_process,
    with_draft_of,
)
from distillspec.assembly.target_data import target_responses
from distillspec.assembly.text import pair_prompts
from distillspec.assembly.trimmed_head import with_head
from distillspec.corpus.sources.prompts import Prompt
from distillspec.errors import DistillSpecError
from distillspec.measure.exact import corpus_alpha
from distillspec.measure.exact.target_texts import drawn_texts
from distillspec.measure.summary.variants import VariantStanding
from distillspec.measure.summary.variants_file import read_round
from distillspec.measure.timed.memory import parameters
from distillspec.methods import cost_model
from distillspec.methods.build import block_sizes, configuration
from distillspec.methods.measure_steps import measure_steps
from distillspec.methods.step_times import StepTimes, middle_prompt
from distillspec.models.loading.precision import cast_parameters, describe
from distillspec.models.runners.compiled import make_runner
from distillspec.recipe.comparison import ComparisonConfig
from distillspec.recipe.loading import load_comparison, load_suite
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime.processes import join
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.workflows.compare_variants import checked_variants


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", default="eval/suites/made-drafts.yaml", help="a comparison")
    parser.add_argument("--trained", type=Path, metavar="FILE", help="first.json of its folder")
    parser.add_argument("--gammas", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--texts", type=int, default=32, help="texts for the mass of a head")
    result_file.add_argument(parser)
    arguments = parser.parse_args()
    comparison = load_comparison(arguments.suite)
    # 1. The target and every draft, with the head that training would keep.
    recipes = checked_variants(comparison)
    recipe = recipes[comparison.against]
    prepare_process(recipe)
    pair = load_pair(recipe)
    sets = pair_prompts(pair)
    responses = target_responses(pair, sets.training, join()).by_key
    pairs = {
        name: with_head(with_draft_of(pair, variant), sets.training, responses)
        for name, variant in recipes.items()
    }
    print(f"{describe(pair.device)}; {torch.get_num_threads()} threads")
    # 2. Time them, and print a table for each temperature.
    suite = load_suite(recipe.evaluate.suite).model_copy(
        update={"gammas": tuple(sorted({*arguments.gammas, comparison.gamma}))}
    )
    held_out = sets.held_out[: arguments.texts]
    sizes, steps = _steps(pair, pairs, held_out, suite)
    trained = _trained(arguments.trained, comparison)
    tables, gamma = {}, comparison.gamma
    for at, times in steps.items():
        highest = _highest_alphas(pair, pairs, held_out, suite, at)
        rows = [
            _row(name, sizes[name], times, highest[name], trained.get(at, {}).get(name), gamma)
            for name in pairs
        ]
        tables[f"T = {at:g}"] = rows
        print(f"\nT = {at:g}, {times.target_seconds * 1e3:.1f} ms per step of the target\n")
        print(result_file.markdown(rows))
    result_file.write("made_drafts", arguments, tables, len({p.document for p in held_out}))


def _steps(
    pair: ModelPair, pairs: Mapping[str, ModelPair], prompts: list[Prompt], suite: Suite
) -> tuple[dict[str, int], dict[float, StepTimes]]:
    """Parameters of each draft, and the step times of all by temperature."""
    texts = [prompt.tokens for prompt in prompts]
    capacity = max(map(len, texts)) + suite.max_new_tokens + max(suite.gammas) + 1
    dtype = dtype_of(suite.runner.dtype, pair.device)
    cast_parameters(pair.target.model, dtype)
    target = make_runner(
        pair.target.model,
        suite.runner.kind,
        capacity,
        block_sizes(suite.gammas),
        vocab_size=pair.vocab_size,
    )
    sizes, drafts = {}, dict[str, Runner]()
    for name, made in pairs.items():
        print(f"preparing {name}", file=sys.stderr)
        draft = made.draft(dtype).eval()
        sizes[name] = parameters(draft)
        drafts[name] = make_runner(
            draft, suite.runner.kind, capacity, (1, 2), vocab_size=pair.vocab_size, prompts=texts
        )
    middle = middle_prompt(texts, list(drafts.values()), max(suite.gammas) + 1)
    return sizes, {
        at: measure_steps(
            target,
            drafts,
            [configuration(MethodConfig(), gamma) for gamma in suite.gammas],
            torch.tensor(middle, device=pair.device),
            policy=_policy(suite, at),
            random_source=GeneratorSource(
                torch.Generator(pair.device).manual_seed(derive_seed(suite.seed, "made drafts", at))
            ),
        )
        for at in suite.temperatures
    }


def _policy(suite: Suite, temperature: float) -> SamplingPolicy:
    return SamplingPolicy(temperature, suite.top_k, suite.nucleus)


def _highest_alphas(
    pair: ModelPair,
    pairs: Mapping[str, ModelPair],
    prompts: list[Prompt],
    suite: Suite,
    temperature: float,
) -> dict[str, float]:
    """The target's mass on the tokens that each draft scores, on text of the target."""
    policy = _policy(suite, temperature)
    target = pair.target.model
    seed = derive_seed(suite.seed, "texts of made drafts", temperature)
    texts = drawn_texts(
        target,
        prompts,
        policy,
        tokens=suite.max_new_tokens,
        seed=seed,
        vocab_size=pair.vocab_size,
    )
    return {
        name: 1.0
        if made.kept is None
        else corpus_alpha.mass(
            target, texts, policy, list(made.kept), vocab_size=pair.vocab_size
        ).mean()
        for name, made in pairs.items()
    }


def _trained(
    path: Path | None, comparison: ComparisonConfig
) -> dict[float, dict[str, VariantStanding]]:
    """The standings of a comparison by temperature and variant."""
    if path is None:
        return {}
    result = read_round(path)
    if result.comparison != comparison.name:
        raise DistillSpecError(
            f"the result is of the comparison {result.comparison}, not of {comparison.name}",
            where=str(path),
            fix="give the folder's file of that comparison",
        )
    return {result.temperature: {one.variant: one for one in result.tables[0].standings}}


def _row(
    name: str,
    size: int,
    times: StepTimes,
    highest: float,
    trained: VariantStanding | None,
    gamma: int,
) -> dict[str, Any]:
    """gamma: the block size of the comparison's tau, at which c is shown too."""
    rounds = times.round_times(name)
    cap = cost_model.best_gamma(highest, rounds)
    row: dict[str, Any] = {
        "draft": name,
        "parameters, M": size / 1e6,
        f"c at gamma {gamma}": times.draft_to_target_time(name, gamma),
        "break-even alpha": cost_model.break_even_alpha(rounds),
        "highest alpha": highest,
        "cap, x": cap.speedup,
        "at gamma": cap.gamma,
    }
    if trained is not None:
        best = cost_model.best_gamma(trained.alpha.value, rounds)
        row |= {
            "alpha": trained.alpha,
            f"tau at gamma {gamma}": trained.tau,
            "predicted, x": best.speedup,
            "by gamma": best.gamma,
        }
    return row


if __name__ == "__main__":
    try:
        main()
    except DistillSpecError as error:
        sys.exit(str(error))
