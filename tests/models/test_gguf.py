from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distillspec.errors import DistillSpecError
from distillspec.models.digest import model_digest
from distillspec.models.folder import folder_facts
from distillspec.models.loading import load_model, load_tokenizer
from distillspec.recipe.gguf_file import converted_folder

needs_gguf = pytest.mark.skipif(
    importlib.util.find_spec("gguf") is None, reason="the extra `gguf` is not installed"
)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "model.layers.": "blk.",
}


def written(pair: Path, file: Path, kind: str) -> Path:
    """The tiny target as a GGUF file, as llama.cpp's converter writes one."""
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quants

    writer = GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(300)
    is_float = kind == "F32"
    writer.add_file_type(LlamaFileType.ALL_F32 if is_float else LlamaFileType.MOSTLY_Q8_0)
    tokenizer = json.loads((pair / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__))
    writer.add_token_types([3, *[1] * 299])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["merges"]])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    for name, weight in load_file(pair / "model.safetensors").items():
        for long, short in NAMES.items():
            name = name.replace(long, short)
        values = weight.numpy()
        if ".attn_q." in name or ".attn_k." in name:  # llama.cpp turns neighbours, not halves
            values = values.reshape(2, 2, 8, 32).swapaxes(1, 2).reshape(32, 32)
        if is_float or values.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(values))
        else:
            quantised = quants.quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantised, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def round_like_a_conversion(model: torch.nn.Module) -> None:
    """To Q8_0 and from there to bfloat16; vectors are not quantised."""
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType.Q8_0
    for weight in model.parameters():
        values = weight.detach().numpy()
        if weight.ndim > 1:
            values = quants.dequantize(quants.quantize(values, kind), kind)
        weight.data = torch.from_numpy(values).bfloat16().float()


@needs_gguf
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_a_gguf_file_loads_as_the_model_that_it_was_made_from(
    tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packed").mkdir()
    file = written(tiny_pair / "target", tmp_path / "packed" / "tiny.gguf", kind)
    assert folder_facts(str(file)).parameters is None  # not converted yet
    model = load_model(str(file), dtype=torch.float32)
    again = load_model(str(file.parent), dtype="auto")  # the folder, converted before
    assert again.dtype == (torch.float32 if kind == "F32" else torch.bfloat16)
    plain = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    if kind != "F32":
        round_like_a_conversion(plain)
    row = torch.arange(20)[None]
    with torch.no_grad():
        p, q = plain(row).logits, model(row).logits
    torch.testing.assert_close(q, p, rtol=1e-4, atol=1e-4)
    tokenizer, other = load_tokenizer(str(file)), load_tokenizer(str(tiny_pair / "target"))
    text = "def f(x):\n    return x  # ÅÅ"
    assert tokenizer.encode(text) == other.encode(text)
    assert tokenizer.eos_token_id == 0
    folder = converted_folder(file)
    assert [p.name for p in folder.parent.iterdir() if not p.name.startswith(".")] == [folder.name]
    assert folder_facts(str(file)).parameters == sum(one.numel() for one in plain.parameters())
    assert model_digest(folder) == model_digest(again)


@needs_gguf
@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_a_damaged_gguf_file_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(DistillSpecError, match="target cannot be loaded"):
        load_model("broken.gguf", dtype=torch.float32, what="target")
    assert not converted_folder(Path("broken.gguf")).exists()


def test_without_the_package_the_message_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DistillSpecError, match="needs the package 'gguf'"):
        load_model("tiny.gguf", dtype=torch.float32)
