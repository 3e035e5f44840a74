"""Measuring of variants on the tiny pair: the texts, and readings that name their settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distillspec.assembly.pair import ModelPair, load_pair
from distillspec.assembly.text import pair_prompts
from distillspec.errors import DistillSpecError
from distillspec.measure.summary.variants import VariantCost
from distillspec.workflows.compare_measure import HOME, VariantMeasure, read_measurement
from distillspec.workflows.compare_variants import variant_recipe
from tests.workflows.tiny_comparison import comparison, workplace

__all__ = ["workplace"]

COST = VariantCost(3, 20, {"rollout": 1.0, "target": 2.0, "update": 3.0}, 0.5)


def measure(gamma: int = 2) -> tuple[VariantMeasure, ModelPair]:
    plan = comparison(gamma=gamma)
    pair = load_pair(variant_recipe(plan, "kl", 0, {}))
    return VariantMeasure(plan, pair, pair_prompts(pair).held_out), pair


@pytest.mark.usefixtures("workplace")
def test_texts_are_the_same_at_each_start_and_of_each_kind_of_prompts() -> None:
    first, second = measure()[0], measure()[0]
    assert first.texts == second.texts
    assert {kind: len(texts.texts) for kind, texts in first.texts.items()} == {HOME: 4, "noise": 4}


@pytest.mark.usefixtures("workplace")
def test_the_target_as_its_own_draft_accepts_everything() -> None:
    measuring, pair = measure()
    readings = measuring.measure(pair.target.model, pair, None).readings
    for reading in readings.values():
        assert reading.alpha.ratio() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.usefixtures("workplace")
def test_a_measurement_is_read_as_it_was_written_with_its_settings(tmp_path: Path) -> None:
    measuring, pair = measure()
    measured = measuring.measure(pair.draft(torch.float32), pair, COST)
    measuring.write(tmp_path / "measured.json", measured)
    stored = read_measurement(tmp_path / "measured.json")
    assert (stored.readings, stored.cost) == (measured.readings, COST)
    assert stored.measured_by == measuring.settings() == measure()[0].settings()
    assert stored.measured_by != measure(gamma=3)[0].settings()


def test_a_damaged_measurement_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"readings": {}}))
    with pytest.raises(DistillSpecError) as caught:
        read_measurement(path)
    assert str(path) in caught.value.where
