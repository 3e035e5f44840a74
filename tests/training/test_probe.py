from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from distillspec.models.loading.load import load_model
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.recipe import distill
from distillspec.training.probe import AcceptanceProbe
from tests.training import tiny_run


@pytest.fixture
def target(tiny_pair: Path) -> FrozenTarget:
    return FrozenTarget(load_model(str(tiny_pair / "target"), dtype=torch.float32))


@pytest.fixture
def draft(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32)


def _probe(target: FrozenTarget, *, seed: int = 0, prompts: int = 4) -> AcceptanceProbe:
    return AcceptanceProbe(
        target,
        tiny_run.prompts(6, seed=9),
        distill.ProbeConfig(prompts=prompts, gamma=2, max_new_tokens=9),
        temperature=1.0,
        eos_token_ids=frozenset({0}),
        pad_token=0,
        seed=seed,
    )


def test_the_target_as_its_own_draft_has_alpha_1_and_tau_gamma_plus_1(
    target: FrozenTarget,
) -> None:
    finding = _probe(target).measure(target.model)
    assert finding.alpha == pytest.approx(1.0, abs=1e-5)
    assert finding.tau == pytest.approx(3.0, abs=1e-5)


def test_alpha_is_the_mean_over_the_tokens_of_the_targets_text(
    target: FrozenTarget, draft: PreTrainedModel
) -> None:
    finding = _probe(target).measure(draft)
    assert 0.0 < finding.alpha < 1.0
    assert 4 <= finding.tokens <= 4 * 9
    assert 1.0 <= finding.tau <= 3.0


def test_measuring_again_sees_the_same_text(target: FrozenTarget, draft: PreTrainedModel) -> None:
    probe = _probe(target)
    first = probe.measure(draft)
    torch.rand(3)
    assert probe.measure(draft) == first
    assert _probe(target).measure(draft) == first  # as after a resumption
    assert _probe(target, seed=1).measure(draft) != first


def test_no_more_prompts_are_used_than_planned(
    target: FrozenTarget, draft: PreTrainedModel
) -> None:
    assert _probe(target, prompts=1).measure(draft).tokens <= 9


def test_answers_too_short_for_a_round_have_no_tau(
    target: FrozenTarget, draft: PreTrainedModel
) -> None:
    probe = AcceptanceProbe(
        target,
        tiny_run.prompts(2, seed=9),
        distill.ProbeConfig(prompts=2, gamma=9, max_new_tokens=4),
        temperature=1.0,
        eos_token_ids=frozenset(),
        pad_token=0,
        seed=0,
    )
    finding = probe.measure(draft)
    assert math.isnan(finding.tau) and finding.is_a_number
    assert "expected tau not measured" in finding.words()
