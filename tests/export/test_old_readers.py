"""The keys of transformers 4.57 are added to the new ones, with the same meaning.

That 4.57 reads them so is tested by eval/campaigns/old_transformers.py, in its own environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from distillspec.export.old_readers import (
    add_old_keys,
    adds_special_tokens,
    old_config_keys,
    old_tokenizer_config,
)
from tests.seq2seq import tiny_t5

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def _config(kind: str, **more: Any) -> dict[str, Any]:
    """config.json of a model of that type as transformers 5 writes it."""
    values: dict[str, Any] = AutoConfig.for_model(kind, **{**SIZES, **more}).to_dict()
    return {**values, "dtype": "bfloat16"}


def _rope(**values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5, **values}}


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("llama", _rope(**LLAMA3), {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
        ("qwen2", _rope(rope_theta=1e6), {"rope_theta": 1e6, "rope_scaling": None}),
        ("qwen3", _rope(rope_theta=1e6), {"rope_theta": 1e6, "rope_scaling": None}),
        ("llama", _rope(rope_theta=1e5), {"rope_theta": 1e5, "rope_scaling": None}),
        (
            "gpt_neox",
            _rope(rope_theta=2e4, partial_rotary_factor=0.5),
            {"rope_theta": 2e4, "rotary_emb_base": 2e4, "rotary_pct": 0.5, "rope_scaling": None},
        ),
        (
            "phi",
            _rope(partial_rotary_factor=0.5),
            {"rope_theta": 5e5, "rope_scaling": None, "partial_rotary_factor": 0.5},
        ),
        ("gpt2", {}, {}),
        ("t5", {}, {"tie_word_embeddings": True}),
        (
            "gemma3_text",
            {"rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }},
            {
                "rope_theta": 1e6, "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
    ],
)  # fmt: skip
def test_each_family_has_the_keys_that_it_had(
    kind: str, more: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert old_config_keys(_config(kind, **more)) == {"torch_dtype": "bfloat16", **expected}


def test_a_t5_without_scaling_is_untied_for_4_57_which_scales_by_that_flag() -> None:
    flan = _config("t5", tie_word_embeddings=False)
    assert flan["tie_word_embeddings"] is True  # as transformers 5 writes it
    keys = old_config_keys(flan, has_head=True)
    assert keys == {"torch_dtype": "bfloat16", "tie_word_embeddings": False}
    assert old_config_keys(flan, has_head=False) is None
    assert old_config_keys(_config("t5"), has_head=True) is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_t5_is_read_as_it_was_trained(tied: bool, tmp_path: Path) -> None:
    model = tiny_t5(tied=tied)
    model.save_pretrained(tmp_path)
    assert add_old_keys(tmp_path) is None
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is tied
    again = type(model).from_pretrained(tmp_path)
    tokens = torch.tensor([[5, 6, 7]])
    before, after = (m(input_ids=tokens, decoder_input_ids=tokens).logits for m in (model, again))
    assert torch.equal(before, after)


def test_longrope_of_phi3_has_the_three_fields_that_it_is_checked_for() -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = _config("phi3", **_rope(rope_type="longrope", **factors), pad_token_id=0)
    keys = old_config_keys(config)
    assert keys is not None
    assert keys["rope_scaling"] == {"type": "longrope", **factors}
    assert old_config_keys({"model_type": "phi3", **_rope(**LLAMA3)}) is None


def test_longrope_of_phimoe_keeps_the_scales_and_the_length_that_4_57_reads_there() -> None:
    scaling = {
        "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
        "short_mscale": 1.2, "long_mscale": 1.4, "original_max_position_embeddings": 64,
    }  # fmt: skip
    config = _config("phimoe", **_rope(**scaling))
    keys = old_config_keys(config)
    assert keys is not None
    assert keys["rope_scaling"] == scaling
    del config["rope_parameters"]["short_mscale"]
    assert old_config_keys(config) is None


def _by_layer(full: dict[str, Any], sliding: dict[str, Any]) -> dict[str, Any]:
    return {"full_attention": full, "sliding_attention": sliding}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "proportional", "rope_theta": 1e6},
        _by_layer({"rope_theta": 1e6}, {"rope_theta": 1e4}),
        _by_layer({"rope_theta": 1e6}, {"rope_type": "proportional", "rope_theta": 1e6}),
        {"other_attention": {"rope_theta": 1e6}},
    ],
)
def test_settings_without_keys_in_4_57_are_left_out_and_reported(
    rope: dict[str, Any], tmp_path: Path
) -> None:
    config = {"model_type": "novel", "dtype": "float32", "rope_parameters": rope}
    assert old_config_keys(config) is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = add_old_keys(tmp_path)
    assert said is not None
    assert "transformers before 5" in said
    assert json.loads((tmp_path / "config.json").read_text()) == config


GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}
GEMMA3_OLD = {
    "rope_theta": 3e6, "rope_local_base_freq": 2e4,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more", "path", "expected"),
    [
        ("gemma3", {"text_config": {**SIZES, "rope_parameters": GEMMA3_ROPE}}, ["text_config"],
         GEMMA3_OLD),
        ("mistral3", {"text_config": {"model_type": "mistral", **SIZES, **_rope()}},
         ["text_config"], {"rope_theta": 5e5, "rope_scaling": None}),
        ("mistral3", {"vision_config": {"model_type": "pixtral", **_rope(rope_type="axial")}},
         ["vision_config"],
         {"rope_theta": 5e5, "rope_scaling": None}),
        ("t5gemma", {}, ["decoder"], {"rope_theta": 1e4, "rope_scaling": None}),
        ("qwen2_5_omni_thinker", {"text_config": {**SIZES, **_rope()}}, ["text_config"],
         {"rope_theta": 5e5, "rope_scaling": None}),
    ],
)  # fmt: skip
def test_nested_configurations_have_old_keys_of_their_own_and_5_reads_the_same(
    kind: str, more: dict[str, Any], path: list[str], expected: dict[str, Any], tmp_path: Path
) -> None:
    AutoConfig.for_model(kind, **more).save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert add_old_keys(tmp_path) is None
    nested = json.loads((tmp_path / "config.json").read_text())
    after = AutoConfig.from_pretrained(tmp_path).to_dict()
    for name in path:
        nested, before, after = nested[name], before[name], after[name]
    assert expected.items() <= nested.items()
    assert after["rope_parameters"] == before["rope_parameters"]


def test_a_nested_configuration_deep_inside_is_found_and_warned_of(tmp_path: Path) -> None:
    novel = {"model_type": "novel", "rope_parameters": {"rope_type": "novel", "rope_theta": 1e6}}
    plain = {"model_type": "llama", **_rope()}
    config = {"model_type": "outer", "thinker": {"text_config": novel, "other": plain}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = add_old_keys(tmp_path)
    assert said is not None
    assert "transformers before 5" in said
    written = json.loads((tmp_path / "config.json").read_text())["thinker"]
    assert written["text_config"] == novel
    assert written["other"] == {**plain, "rope_theta": 5e5, "rope_scaling": None}


def test_layers_that_are_all_alike_have_the_keys_of_one() -> None:
    rope = {"rope_type": "default", "rope_theta": 7e4}
    config = {"model_type": "novel", "rope_parameters": _by_layer(rope, dict(rope))}
    assert old_config_keys(config) == {"rope_theta": 7e4, "rope_scaling": None}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", _rope(**LLAMA3)),
        ("gpt_neox", _rope(rope_theta=2e4, partial_rotary_factor=0.5)),
        ("gemma3_text", {"rope_parameters": _by_layer(
            {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e6},
            {"rope_type": "default", "rope_theta": 2e4},
        )}),
        ("olmo3", {"rope_parameters": _by_layer(
            {"rope_type": "yarn", "factor": 8.0, "rope_theta": 3e6},
            {"rope_type": "default", "rope_theta": 3e6},
        )}),
        ("phi", _rope(partial_rotary_factor=0.25)),
        ("qwen3", _rope()),
    ],
)  # fmt: skip
def test_transformers_5_reads_the_same_with_both_sets_of_keys(
    kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    def read(folder: Path) -> PretrainedConfig:
        return AutoConfig.from_pretrained(folder)

    AutoConfig.for_model(kind, **{**SIZES, **more}, dtype="bfloat16").save_pretrained(tmp_path)
    before = read(tmp_path)
    assert add_old_keys(tmp_path) is None
    assert "rope_theta" in json.loads((tmp_path / "config.json").read_text())
    after = read(tmp_path)
    assert after.rope_parameters == before.rope_parameters
    assert after.dtype == before.dtype
    again = (tmp_path / "config.json").read_text()
    assert add_old_keys(tmp_path) is None  # as every evaluation does
    assert (tmp_path / "config.json").read_text() == again


def test_a_tokenizer_names_the_class_that_both_versions_have(tiny_pair: Path) -> None:
    config = json.loads((tiny_pair / "target" / "tokenizer_config.json").read_text())
    found = old_tokenizer_config(
        {**config, "extra_special_tokens": ["<a>"]}, adds_special_tokens=True
    )
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert found["model_input_names"] == ["input_ids", "attention_mask"]
    assert found["additional_special_tokens"] == ["<a>"]
    assert "extra_special_tokens" not in found
    image = {"extra_special_tokens": {"image": "<i>"}}
    assert old_tokenizer_config(image, adds_special_tokens=True) == image | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
    }


@pytest.mark.parametrize("prefix", ["", "<|endoftext|> "])
def test_llama_cpp_is_kept_from_adding_a_token_that_the_tokenizer_does_not_add(
    tiny_pair: Path, tmp_path: Path, prefix: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_pair / "target")
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{prefix}$A", special_tokens=[("<|endoftext|>", end)] if prefix else []
    )
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert add_old_keys(tmp_path) is None
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config.get("add_bos_token") is (None if prefix else False)
    after = AutoTokenizer.from_pretrained(tmp_path)
    assert after("def f")["input_ids"] == tokenizer("def f")["input_ids"]
    assert (after("def f")["input_ids"][0] == end) == bool(prefix)


@pytest.mark.parametrize(
    ("processor", "adds"),
    [
        (None, False),
        ({"type": "ByteLevel"}, False),
        ({"type": "RobertaProcessing"}, True),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}]}, False),
        ({"type": "Sequence", "processors": [{"type": "BertProcessing"}]}, True),
    ],
)
def test_a_post_processor_shows_whether_it_adds_tokens(
    processor: dict[str, Any] | None, adds: bool
) -> None:
    assert adds_special_tokens({"post_processor": processor}) == adds


def test_transformers_5_reads_the_same_tokenizer(tiny_pair: Path, tmp_path: Path) -> None:
    before = AutoTokenizer.from_pretrained(tiny_pair / "target")
    before.add_special_tokens({"extra_special_tokens": ["<|a|>", "<|b|>"]})
    before.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert add_old_keys(tmp_path) is None
    after = AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x):<|a|>\n    return x<|b|>"
    assert after.encode(text) == before.encode(text)
    assert after.all_special_tokens == before.all_special_tokens
    assert after.get_vocab() == before.get_vocab()
    assert set(after(text)) == set(before(text))
