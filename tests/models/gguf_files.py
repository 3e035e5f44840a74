"""Writes tiny models as GGUF files, as llama.cpp's converter does."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

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


def written(
    model: Path,
    file: Path,
    kind: str = "F32",
    *,
    architecture: str = "llama",
    pre: str | None = "gpt-2",
    add: Callable[[Any], None] = lambda _: None,
) -> Path:
    """The model of 2 layers and hidden size 32 in the folder `model` as a GGUF file.

    add: writes more settings and tensors with the GGUFWriter that it is called with.
    """
    from gguf import GGUFWriter, LlamaFileType

    writer = GGUFWriter(file, architecture)
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
    tokenizer = json.loads((model / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__))
    writer.add_token_types([3, *[1] * 299])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["merges"]])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    _write_tensors(writer, load_file(model / "model.safetensors"), architecture, is_float)
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_tensors(
    writer: Any, weights: dict[str, Tensor], architecture: str, is_float: bool
) -> None:
    from gguf import GGMLQuantizationType, quants

    for name, weight in weights.items():
        for long, short in NAMES.items():
            name = name.replace(long, short)
        values = weight.numpy()
        if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
            # llama.cpp turns neighbours, not halves
            values = values.reshape(2, 2, 8, 32).swapaxes(1, 2).reshape(32, 32)
        if is_float or values.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(values))
        else:
            quantised = quants.quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantised, raw_dtype=GGMLQuantizationType.Q8_0)
