"""`train` and `evaluate` on the tiny pair; what they do is tested with the stages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from distillspec.divergence.table import DIVERGENCES
from distillspec.errors import DistillSpecError
from distillspec.methods.build import VERIFIERS
from distillspec.recipe.loading import load_recipe
from distillspec.speculation.random_source import GeneratorSource
from distillspec.workflows.library import divergences, evaluate, train, verification_rules
from tests.tiny_plan import recipe, written_plan

SUITE = """\
prompts: {count: 2, texts: 4}
gammas: [2]
temperatures: [1.0]
max_new_tokens: 4
runner: {kind: eager, dtype: float32}
"""


def test_a_trained_run_is_evaluated(
    tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_pair, "pair")
    Path("tiny.yaml").write_text(SUITE)
    plan = written_plan(Path("pair"), tmp_path)
    probe = {"every_steps": 1, "prompts": 2, "gamma": 2, "max_new_tokens": 4}
    distill = {"source": {"draft": 1.0}, "batch_size": 4, "max_steps": 1, "probe": probe}
    evaluated = {"suite": "tiny.yaml", "control": False}
    run = train(recipe(plan, distill=distill, evaluate=evaluated))
    assert (run.draft / "model.safetensors").is_file()
    summary = evaluate(run)
    assert {cell.draft for cell in summary.cells} == {"undistilled", "distilled"}
    assert train(run.recipe(), run.path) == run  # resumed: nothing is left to do
    assert evaluate(run.path, "tiny.yaml").cells == summary.cells


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_recipe_that_distils_no_pair_is_refused(is_loaded: bool) -> None:
    name = "nano-python-draft"
    with pytest.raises(DistillSpecError, match="distils no pair") as caught:
        train(load_recipe(name) if is_loaded else name)
    assert name in caught.value.fix


def test_every_divergence_of_recipes_is_zero_at_equality() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64)
    assert set(divergences) == set(DIVERGENCES)
    for divergence in divergences.values():
        torch.testing.assert_close(divergence(logits, logits), torch.zeros(3).double())


def test_the_rules_are_the_lossless_ones_of_suites() -> None:
    assert set(verification_rules) == set(VERIFIERS) - {"lenient"}
    p = torch.full((3, 4), 0.25)
    source = GeneratorSource(torch.Generator().manual_seed(0))
    for name in ("token", "block"):
        result = verification_rules[name](p, p[:2], torch.tensor([1, 2]), source)
        assert result.tokens[:2] == [1, 2]
