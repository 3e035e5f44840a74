"""The package as a library: training, evaluation, divergences and verification rules.

`distillspec` exports these names. `train` and `evaluate` do the same as the verbs of that name,
with run folders under the current folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from distillspec.divergence.table import DIVERGENCES, DivergenceSettings
from distillspec.errors import DistillSpecError
from distillspec.measure.evaluation import SUMMARY
from distillspec.measure.summary.file import read_summary
from distillspec.measure.summary.records import Summary
from distillspec.recipe.loading import load_recipe, load_suite
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.schema import Recipe
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.multipath import verify_multipath
from distillspec.speculation.verify.recursive import verify_recursive
from distillspec.speculation.verify.result import VerificationRule
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.traversal import verify_traversal
from distillspec.workflows import distill
from distillspec.workflows.evaluate import evaluate as evaluate_folder
from distillspec.workflows.run_folder import RunFolder

divergences: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {name: make(DivergenceSettings()).reference for name, make in DIVERGENCES.items()}
)
"""Divergences by their name in recipes. Each takes target and draft logits, shape [..., V], and
returns values, shape [...], with gradients: nats for the KL divergences and jsd, probability
for tvd. Parameters have the defaults of a recipe.
"""

verification_rules: Mapping[str, VerificationRule] = MappingProxyType(
    {
        "token": verify_token,
        "block": verify_block,
        "kseq": verify_kseq,
        "recursive": verify_recursive,
        "traversal": verify_traversal,
        "multipath": verify_multipath,
    }
)
"""Lossless verification rules by their name in suites. `token` and `block` take the drafted tokens
of a sequence. The others take a tree of sequences (`speculation.tree.Tree`).
"""


def train(
    recipe: Recipe | PretrainRecipe | str | Path, folder: str | Path | None = None
) -> RunFolder:
    """Train and export a draft, as `distillspec train` does.

    Args:
        recipe: A recipe of kind distill from `load_recipe`, its path, or a built-in name.
        folder: A run folder to resume; default: a new one under checkpoints/runs/.

    Returns:
        The run folder; `.draft` is the exported model.

    Raises:
        DistillSpecError: Recipe, pair or data cannot be used.
    """
    given = load_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    if not isinstance(given, Recipe):
        name = given.name if recipe is given else recipe
        raise DistillSpecError(
            "this recipe makes a model from nothing; it distils no pair",
            where=str(name),
            fix=f"start it with: distillspec pretrain {name}",
        )
    return distill.trained(given, None if folder is None else Path(folder))


def evaluate(run: RunFolder | str | Path, suite: str | Path | None = None) -> Summary:
    """Measure the drafts of a run by decoding with them, as `distillspec evaluate` does.

    Args:
        run: A run folder, as `train` returns it.
        suite: A path, or the name of a built-in suite; default: the suite of the run's recipe.

    Returns:
        The content of evaluation/<suite>/summary.json in the run folder.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(Path(run))
    chosen = str(suite if suite is not None else folder.recipe().evaluate.suite)
    evaluate_folder(folder.path, chosen)
    return read_summary(folder.evaluation(load_suite(chosen).name) / SUMMARY)
