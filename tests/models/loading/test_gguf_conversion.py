from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from distillspec.errors import DistillSpecError
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.model_facts import folder_facts
from distillspec.recipe.gguf_file import converted_folder
from tests.models.gguf_files import needs_gguf, written


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
    tokenizer, converted_model = (
        load_tokenizer(str(file)),
        load_tokenizer(str(tiny_pair / "target")),
    )
    text = "def f(x):\n    return x  # ÅÅ"
    assert tokenizer.encode(text) == converted_model.encode(text)
    assert tokenizer.eos_token_id == 0
    folder = converted_folder(file)
    assert [p.name for p in folder.parent.iterdir() if not p.name.startswith(".")] == [folder.name]
    assert folder_facts(str(file)).parameters == sum(
        original.numel() for original in plain.parameters()
    )
    assert model_digest(folder) == model_digest(again)


@needs_gguf
@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_a_damaged_gguf_file_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(DistillSpecError, match="damaged"):
        load_model("broken.gguf", dtype=torch.float32, what="target")
    assert not converted_folder(Path("broken.gguf")).exists()


@needs_gguf
def test_weights_that_the_conversion_leaves_out_are_named(
    tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def biases(writer: Any) -> None:
        for layer in range(2):
            for name in ("attn_q", "attn_k"):
                writer.add_tensor(f"blk.{layer}.{name}.bias", np.ones(32, dtype=np.float32))

    file = written(tiny_pair / "target", tmp_path / "biased.gguf", add=biases)
    with pytest.raises(DistillSpecError, match=r"leave out tensors.*\(4 of 24\)") as caught:
        load_model(str(file), dtype=torch.float32)
    assert "blk.0.attn_k.bias, blk.0.attn_q.bias, blk.1.attn_k.bias, ..." in caught.value.what
    assert "Hugging Face folder" in caught.value.fix
    assert not converted_folder(file).exists()


@needs_gguf
def test_an_architecture_that_transformers_does_not_convert_is_named(
    tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tiny_pair / "target", tmp_path / "new.gguf", architecture="news")
    with pytest.raises(DistillSpecError, match="architecture 'news'") as caught:
        load_model("new.gguf", dtype=torch.float32)
    assert "Hugging Face folder" in caught.value.fix


@needs_gguf
def test_biases_that_the_architecture_has_are_converted(
    tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    model.save_pretrained("qwen2")
    shutil.copy(tiny_pair / "target" / "tokenizer.json", "qwen2")
    file = written(Path("qwen2"), tmp_path / "q.gguf", architecture="qwen2", pre="qwen2")
    row = torch.arange(20)[None]
    with torch.no_grad():
        p, q = model(row).logits, load_model(str(file), dtype=torch.float32)(row).logits
    torch.testing.assert_close(q, p, rtol=1e-4, atol=1e-4)
    assert load_tokenizer(str(file)).tokenize("a12") == ["a", "1", "2"]


def test_without_the_package_the_message_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DistillSpecError, match="needs the package 'gguf'"):
        load_model("tiny.gguf", dtype=torch.float32)
