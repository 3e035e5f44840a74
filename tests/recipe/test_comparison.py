from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.loading import load_comparison, load_suite

COMPARISON = """\
kind: comparison
recipe: pair.yaml
minutes: 1
changes: {distill.temperature: 0.7}
variants:
  kl: {}
  tvd: {distill.divergence: tvd, distill.temperature: 1.0}
  chosen: {distill.select: {reference: "variant:kl"}}
"""


def loaded(tmp_path: Path, *changes: str, text: str = COMPARISON) -> Any:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_comparison(path, changes)


def test_variants_change_the_recipe_and_the_first_is_the_baseline(tmp_path: Path) -> None:
    found = loaded(tmp_path, "minutes=2")
    assert (found.name, found.minutes, found.against) == ("mine", 2.0, "kl")
    assert found.changes_of("kl") == {"distill.temperature": 0.7}
    assert found.changes_of("tvd") == {"distill.temperature": 1.0, "distill.divergence": "tvd"}
    assert found.needs("chosen") == ["kl"]
    assert found.needs("tvd") == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("baseline=other", r"baseline 'other'.*\n.*: baseline\n"),
        ("seeds=[1, 1]", "lists a value twice"),
        ("seeds=[]", "seeds"),
        ('variants.late={distill.select: {reference: "variant:later"}}', r"variants\.late"),
        ("variants.x={distill.max_minutes: 3}", "which the comparison sets itself"),
        ("variants={}", "variants"),
        ("variants.undistilled={}", "give it another name"),
        ("variants.bad/name={}", "bad/name"),
        ("kind=suite", "kind"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(tmp_path: Path, changes: str, says: str) -> None:
    with pytest.raises(DistillSpecError, match=says):
        loaded(tmp_path, changes)


def test_the_shipped_comparisons_load() -> None:
    shipped = Path(__file__).parents[2] / "eval" / "suites"
    found = [p for p in shipped.glob("*.yaml") if "kind: comparison" in p.read_text()]
    assert found
    for path in found:
        assert load_comparison(path).name == path.stem
        with pytest.raises(DistillSpecError, match="is a comparison"):
            load_suite(path)


def test_a_suite_is_told_from_a_comparison() -> None:
    with pytest.raises(DistillSpecError, match="no comparison") as caught:
        load_comparison(Path(__file__).parents[2] / "eval" / "suites" / "quick.yaml")
    assert "--suite" in caught.value.fix
