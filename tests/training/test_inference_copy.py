from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from distillspec.models.loading.load import load_model
from distillspec.models.loading.precision import cast_parameters
from distillspec.models.surgery.adapters import add_lora
from distillspec.recipe.schema import AdapterConfig
from distillspec.training.inference_copy import InferenceCopy

CPU = torch.device("cpu")


@pytest.fixture
def draft(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32)


def test_a_draft_that_can_decode_as_it_is_is_its_own_replica(draft: PreTrainedModel) -> None:
    assert InferenceCopy(draft.train(), torch.float32, sharded=False).refresh(CPU) is draft
    assert not draft.training


@pytest.mark.parametrize(("dtype", "sharded"), [(torch.bfloat16, False), (torch.float32, True)])
def test_a_replica_has_the_current_weights_in_the_decoding_dtype(
    draft: PreTrainedModel, dtype: torch.dtype, sharded: bool
) -> None:
    replica = InferenceCopy(draft.train(), dtype, sharded=sharded)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.add_(1.0)
    model = replica.refresh(CPU)
    assert model is not draft
    assert draft.training
    assert not model.training
    copies = dict(model.named_parameters())
    for name, parameter in draft.named_parameters():
        assert copies[name].dtype == dtype
        assert torch.equal(copies[name], parameter.to(dtype))
    tied = model.get_output_embeddings().weight
    assert tied is model.get_input_embeddings().weight


def test_adapters_are_replicated_too(draft: PreTrainedModel) -> None:
    adapted = add_lora(draft, AdapterConfig(rank=2))
    replica = InferenceCopy(adapted, torch.bfloat16, sharded=False)
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = replica.refresh(CPU)(tokens).logits
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1.0)
        after = replica.refresh(CPU)(tokens).logits
        cast_parameters(adapted, torch.bfloat16)
        expected = adapted.eval()(tokens).logits
    assert not torch.equal(before, after)
    assert torch.equal(after, expected)
