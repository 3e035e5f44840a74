"""Bytes by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from distillspec.measure.timed.memory import TrainingLoad, memory_estimate, parameters, round_bytes

if TYPE_CHECKING:
    from tests.measured import Setting

LOAD = TrainingLoad(sequences=4, tokens_per_sequence=10, chunk_tokens=8)


def test_weights_and_optimizer_are_exact(setting: Setting) -> None:
    draft = setting.drafts["undistilled"]
    found = memory_estimate(setting.target, draft, LOAD, context=100)
    assert found.target_weights == 4 * parameters(setting.target)
    assert found.draft_weights == 4 * parameters(draft)
    assert found.draft_training == 16 * parameters(draft)
    assert found.logits_chunk == 2 * 4 * 8 * 300
    large = replace(LOAD, chunk_tokens=1000)  # a step has 40 tokens
    found = memory_estimate(setting.target, draft, large, context=100)
    assert found.logits_chunk == 2 * 4 * 40 * 300


def test_the_process_and_the_precision_of_training_count(setting: Setting) -> None:
    """Both models are in float32, independent of the precision of the training."""
    draft = setting.drafts["undistilled"]
    full = memory_estimate(setting.target, draft, LOAD, context=100)
    half = memory_estimate(setting.target, draft, replace(LOAD, itemsize=2), context=100)
    assert 2 * half.activations == full.activations
    assert 2 * half.target_in_training == full.target_in_training == full.target_weights
    assert half.draft_training == full.draft_training + 2 * parameters(draft)
    with_process = memory_estimate(setting.target, draft, replace(LOAD, process=500), context=100)
    assert with_process.training() - full.training() == 500
    assert with_process.decoding() - full.decoding() == 500


def test_caches_by_hand(setting: Setting) -> None:
    """Keys and values of 100 tokens in float32: 2 layers of width 32, 1 layer of width 16."""
    found = memory_estimate(setting.target, setting.drafts["undistilled"], LOAD, context=100)
    assert found.decoding_caches == 2 * 100 * 4 * (2 * 32 + 16)


def test_adapters_train_only_themselves(setting: Setting) -> None:
    draft = setting.drafts["undistilled"]
    load = TrainingLoad(4, 10, 8, trainable_parameters=50)
    found = memory_estimate(setting.target, draft, load, context=100)
    assert found.draft_training == 4 * parameters(draft) + 16 * 50


def test_activations_grow_with_the_tokens_of_a_step(setting: Setting) -> None:
    one, two = (
        memory_estimate(
            setting.target, setting.drafts["undistilled"], TrainingLoad(n, 10, 8), context=100
        )
        for n in (4, 8)
    )
    assert two.activations == pytest.approx(2 * one.activations)
    assert two.training() - one.training() == two.activations - one.activations
    assert two.decoding() == one.decoding()


def test_a_round_by_hand(setting: Setting) -> None:
    """Caches of 90 + 10 tokens, 11 rows of logits and of p, 10 of q, over 300 tokens."""
    draft = setting.drafts["undistilled"]
    found = round_bytes(setting.target, [draft, draft], text=90, drafted=10, judged=10)
    caches = 2 * 100 * 4 * (2 * 32 + 16 + 16)
    assert found == caches + 11 * 300 * (4 + 4) + 10 * 300 * 4
    fewer = round_bytes(setting.target, [draft, draft], text=90, drafted=10, judged=2)
    assert fewer == caches + 3 * 300 * (4 + 4) + 2 * 300 * 4
