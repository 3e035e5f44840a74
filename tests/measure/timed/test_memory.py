"""Bytes by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillspec.corpus.batches.batching import collate
from distillspec.measure.timed.memory import TrainingLoad, memory_estimate, parameters, round_bytes
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.training.objective import Objective
from distillspec.training.optimizer import optimizers
from tests.live_bytes import LiveBytes
from tests.training import tiny_run

if TYPE_CHECKING:
    from tests.measured import Setting

LOAD = TrainingLoad(sequences=4, tokens_per_sequence=10, chunk_tokens=8)


def test_weights_and_optimizer_are_exact(setting: Setting) -> None:
    draft = setting.drafts["undistilled"]
    found = memory_estimate(setting.target, draft, LOAD, context=100)
    assert found.target_weights == 4 * parameters(setting.target)
    assert found.draft_weights == 4 * parameters(draft)
    assert found.draft_training == 12 * parameters(draft)
    assert found.gradients == 4 * parameters(draft)
    # Two products and five blocks, which a chunk of 8 rows fills.
    assert found.logits_chunk == (2 + 5) * 4 * 8 * 300
    large = replace(LOAD, chunk_tokens=1000)  # a step has 40 tokens
    found = memory_estimate(setting.target, draft, large, context=100)
    assert found.logits_chunk == (2 + 5) * 4 * 40 * 300


def test_the_process_and_the_precision_of_training_count(setting: Setting) -> None:
    """Both models are in float32, independent of the precision of the training."""
    draft = setting.drafts["undistilled"]
    full = memory_estimate(setting.target, draft, LOAD, context=100)
    half = memory_estimate(setting.target, draft, replace(LOAD, itemsize=2), context=100)
    # The target has the larger layer: 32 wide, 64 in its feed-forward part.
    assert full.activations == 40 * (42 * 32 + 4 * 4 * 64)
    assert half.activations == 40 * (37 * 32 + 4 * 2 * 64)
    cached = memory_estimate(setting.target, draft, replace(LOAD, reads_target=False), context=100)
    # The draft's one layer, 16 wide, with the states before and after the last norm.
    assert cached.activations == 40 * (42 * 16 + 4 * 4 * 32 + 8 * 16)
    assert full.products == 0 < half.products  # only bfloat16 makes a product for each shape
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
    assert found.draft_training == 4 * parameters(draft) + 8 * 50
    assert (found.gradients, found.embedding_gradients) == (4 * 50, 0)


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


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("layers", "vocab_size", "kept", "rows"),
    [(1, 2048, None, 8), (2, 16384, None, 8), (2, 16384, 2048, 8), (6, 512, None, 16)],
)
def test_a_training_step_holds_about_as_many_bytes_as_estimated(
    layers: int, vocab_size: int, kept: int | None, rows: int, half: bool
) -> None:
    """Every tensor is counted: activations, a wide head and a trimmed one dominate in turn."""
    dtype = torch.bfloat16 if half else torch.float32
    target, draft = _llama(4, vocab_size), _llama(layers, vocab_size)
    torch.nn.Module.to(target, dtype)
    if kept is not None:
        trim_head(draft, range(kept))
    plan = tiny_run.recipe(distill={"chunk_tokens": 128, "divergence": "jsd"})
    objective = Objective(plan.distill, FrozenTarget(target))
    batch = collate([(tuple(range(1, 25)), tuple(range(30, 70)))] * rows, 0)
    (optimizer,) = optimizers(draft, plan.optimizer)

    def step() -> None:
        outputs = objective.target_outputs(draft, batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            sums = objective.loss(draft, batch, outputs)
        sums.divergence.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()  # makes the moments, and compares heads once
    with LiveBytes() as counted:
        step()
    assert counted.now == 0
    load = TrainingLoad(rows, 64, 128, scored_tokens=kept, itemsize=dtype.itemsize)
    found = memory_estimate(target, draft, load, context=64)
    # Weights and moments were there before the step.
    there = 12 * parameters(draft)
    assert there + found.step() == pytest.approx(there + counted.peak, rel=0.1)


def test_recomputed_layers_store_their_inputs(setting: Setting) -> None:
    """The target as its own draft: two layers of width 32, of which one is computed at a time."""
    load = replace(LOAD, reads_target=False, recomputes=True)
    found = memory_estimate(setting.target, setting.target, load, context=100)
    one_layer = 42 * 32 + 4 * 4 * 64
    assert found.activations == 40 * (2 * 4 * 32 + one_layer + 8 * 32)


def test_gradients_of_several_micro_batches_live_through_the_forward_pass(
    setting: Setting,
) -> None:
    draft = setting.drafts["undistilled"]
    one, several = (
        memory_estimate(setting.target, draft, replace(LOAD, accumulates=value), context=100)
        for value in (False, True)
    )
    assert several.step() - one.step() == 4 * parameters(draft)


def _llama(layers: int, vocab_size: int) -> LlamaForCausalLM:
    torch.manual_seed(layers)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=layers,
        num_attention_heads=4,
        vocab_size=vocab_size,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)
