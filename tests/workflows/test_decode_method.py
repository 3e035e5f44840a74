"""The method of `decode`: names, arms, and what one text cannot be decoded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.methods.build import configurations
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.workflows.decode_method import chooser_for, planned_method

BLOCK = {"name": "block", "verify": {"kind": "block"}}
PER = "decode: method: choose: per"
UCB = {"choose": {"kind": "ucb", "arms": ["standard@2", "standard@4"], "reward": "tokens"}}


def test_a_method_that_does_not_choose_has_the_gamma_that_is_given() -> None:
    plan, plans = planned_method("standard", None, 3)
    assert plan.gammas == (3,)
    assert [(method.name, size) for method, size in configurations(plans, plan)] == [
        ("standard", 3)
    ]


def test_a_name_is_looked_up_in_the_suite() -> None:
    suite = Suite.model_validate({"methods": [BLOCK]})
    plan, _ = planned_method("block", suite, 2)
    assert plan.verify.kind == "block"
    with pytest.raises(DistillSpecError) as caught:
        planned_method("missing", suite, 2)
    assert "standard, block" in caught.value.fix


def test_a_suite_file_is_named_where_it_lacks_a_method(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("methods: [{name: block, verify: {kind: block}}]\n")
    with pytest.raises(DistillSpecError) as caught:
        planned_method("missing", path, 2)
    assert caught.value.where == str(path)


def test_a_method_that_chooses_finds_standard_among_its_arms_without_a_suite() -> None:
    plan, plans = planned_method(UCB, None, 2)
    arms = {(method.name, size) for method, size in configurations(plans, plan)}
    assert {("standard", 2), ("standard", 4)} <= arms


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ({"choose": {"kind": "ucb", "arms": ["standard@2"], "per": "text"}}, PER),
        ({"draft": {"kind": "chain", "model": "control"}}, "decode: method: draft"),
    ],
)
def test_what_one_text_and_one_draft_cannot_do_is_refused(
    method: dict[str, Any], where: str
) -> None:
    with pytest.raises(DistillSpecError) as caught:
        planned_method(method, None, 2)
    assert caught.value.where == where


def test_a_method_without_arms_always_decodes_with_its_configuration() -> None:
    plan, plans = planned_method(MethodConfig(), None, 5)
    unused: Any = None
    chosen = chooser_for(plans, plan, 5, unused, {}, torch.tensor([1]), SamplingPolicy(), 0)
    assert isinstance(chosen, Fixed)
