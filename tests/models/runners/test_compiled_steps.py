"""One graph a step: it reads a block at any position, and keeps to its own model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.models.runners.compiled_steps import (
    compile_step,
    entropy_step_of,
    full_cache,
    step_of,
    tree_step_of,
)
from tests.models.conftest import PATHS, TREE, one_pass

ROOM = 64


def scalar(value: int) -> Tensor:
    return torch.tensor(value)


def test_a_full_cache_has_room_in_every_layer(llama: PreTrainedModel) -> None:
    cache = full_cache(llama, ROOM)
    assert [buffer.shape[2] for layer in cache.layers for buffer in layer.buffers] == [ROOM] * 4


@torch.no_grad()
def test_a_step_reads_a_block_at_the_start_it_is_given(
    llama: PreTrainedModel, text: Tensor
) -> None:
    step = step_of(llama, full_cache(llama, ROOM))
    logits = torch.cat([step(text[:, i : i + 4], scalar(i)) for i in range(0, 12, 4)], dim=1)
    torch.testing.assert_close(logits, one_pass(llama, text[:, :12]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_entropy_step_gives_the_entropy_after_the_last_token(
    llama: PreTrainedModel, text: Tensor
) -> None:
    step = entropy_step_of(llama, full_cache(llama, ROOM), 7)
    logits, entropy = step(text[:, :3], scalar(0), torch.tensor(0.5))
    expected = torch.distributions.Categorical(logits=logits[0, -1, :7] / 0.5).entropy()
    torch.testing.assert_close(entropy, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_tree_step_reads_each_path_as_a_text(llama: PreTrainedModel, text: Tensor) -> None:
    cache = full_cache(llama, ROOM)
    step_of(llama, cache)(text[:, :6], scalar(0))
    visible = torch.zeros(len(TREE), ROOM, dtype=torch.bool)
    visible[:, :6] = True
    for node, path in enumerate(PATHS):
        visible[node, [6 + above for above in path]] = True
    positions = torch.tensor([6 + len(path) - 1 for path in PATHS])
    logits = tree_step_of(llama, cache)(torch.tensor([TREE]), scalar(6), positions, visible)
    for node, path in enumerate(PATHS):
        row = torch.cat([text[:, :6], torch.tensor([[TREE[above] for above in path]])], dim=1)
        expected = one_pass(llama, row)[0, -1]
        torch.testing.assert_close(logits[0, node], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_compiled_step_computes_what_the_step_computes(
    llama: PreTrainedModel, text: Tensor
) -> None:
    cache = full_cache(llama, ROOM)
    block, start = text[:, :4].clone(), scalar(0)
    compiled = compile_step(llama, step_of(llama, cache), block, start)
    torch.testing.assert_close(
        compiled(block, start), one_pass(llama, text[:, :4]), atol=1e-4, rtol=1e-4
    )
