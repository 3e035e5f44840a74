from __future__ import annotations

from typing import Any

import pytest

from distillspec.models.loading.extra_weights import explain_extra
from distillspec.recipe.weights_file import StoredTensor

MASK = StoredTensor("U8", (1, 1, 8, 8), 64)
NUMBER = StoredTensor("F32", (), 4)
VECTOR = StoredTensor("F32", (96,), 384)


@pytest.mark.parametrize(
    ("name", "tensor", "config"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", VECTOR, {}),
        ("rotary.inv_freq", VECTOR, {}),
        ("transformer.h.0.attn.bias", MASK, {}),
        ("transformer.h.0.attn.masked_bias", NUMBER, {}),
        ("gpt_neox.layers.0.attention.bias", MASK, {}),
        ("model.embeddings.position_ids", VECTOR, {}),
        ("mtp.layers.0.mlp.up_proj.weight", VECTOR, {}),
        ("model.mtp_layers.0.norm.weight", VECTOR, {}),
        ("model.layers.4.norm.weight", VECTOR,
         {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}),
        ("model.layers.5.norm.weight", VECTOR,
         {"text_config": {"num_hidden_layers": 5, "num_nextn_predict_layers": 1}}),
    ],
)  # fmt: skip
def test_what_is_known_to_be_no_part_of_the_forward_passes(
    name: str, tensor: StoredTensor, config: dict[str, Any]
) -> None:
    extra = explain_extra([name], {name: tensor}, config)
    assert extra.unknown == []
    assert list(extra.known.values()) == [[name]]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("transformer.h.0.attn.bias", {}),  # a vector: a trained bias of a fused projection
        ("model.layers.4.norm.weight", {"num_hidden_layers": 4}),
        ("model.layers.5.norm.weight", {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}),
        ("model.layers.3.extra.weight", {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}),
        ("model.layers.4.norm.weight", {"num_hidden_layers": "4", "num_nextn_predict_layers": []}),
        ("v_head.weight", {}),
        ("model.emtp.weight", {}),
    ],
)
def test_anything_else_is_unknown(name: str, config: dict[str, Any]) -> None:
    extra = explain_extra([name], {name: VECTOR}, config)
    assert (extra.known, extra.unknown) == ({}, [name])


def test_a_mask_of_a_name_that_no_file_holds_is_unknown() -> None:
    assert explain_extra(["h.0.attn.bias"], {}, {}).unknown == ["h.0.attn.bias"]
