"""Which models can forget their last tokens, by config.json alone. Imports no torch.

Speculative decoding takes rejected tokens back. An attention cache is cut for that; a running state
cannot be. What only the model itself tells is found when it is loaded
(`models.cache.check_rolls_back`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from distillspec.errors import DistillSpecError

# Kinds of layers whose cache can forget its last tokens; on disk "attention" is an older name.
ROLLS_BACK = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_ROLLS_BACK_ON_DISK = ROLLS_BACK | {"attention"}
# Models that keep a running state whatever their layers are called (transformers: `_is_stateful`).
RECURRENT = frozenset(
    {
        "bailing_hybrid",
        "bamba",
        "deepseek_v4",
        "falcon_h1",
        "falcon_mamba",
        "glm5_next",
        "glm5_next_text",
        "granitemoehybrid",
        "jamba",
        "kimi_linear",
        "mamba",
        "mamba2",
        "minicpm_ocr",
        "minicpmv4_6",
        "minicpmv4_7",
        "nemo_speechlm",
        "nemotron_h",
        "nemotron_h_omni",
        "olmo_hybrid",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_next",
        "qwen4_exp",
        "qwen4_exp_text",
        "recurrent_gemma",
        "rwkv",
        "xlstm",
        "zamba",
        "zamba2",
        "zaya",
    }
)
# Kinds that a model has where config.json lists none.
_UNLISTED = {
    "conv": {"lfm3"},
    "hybrid_sliding": {"inkling2_text", "inkling_text"},
    "indexed_attention": {
        "axk2",
        "deepseek_v32",
        "dots3_note",
        "dots3_note_text",
        "glm_moe_dsa",
        "hy_v4",
    },
    "linear_attention": {"minimax"},
}


def check_rolls_back(config: Mapping[str, Any], where: str) -> None:
    """DistillSpecError where config.json alone says that the cache cannot forget tokens."""
    # A multimodal model keeps the settings of its text model under `text_config`.
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    given = (config.get("model_type"), text.get("model_type"))
    types = sorted({name for name in given if isinstance(name, str)})
    layers = text.get("layer_types")
    named = {str(layer) for layer in layers} if isinstance(layers, list) else _unnamed(types, text)
    kinds = sorted(named - _ROLLS_BACK_ON_DISK)
    recurrent = [name for name in types if name in RECURRENT]
    if kinds or recurrent:
        refuse_memory(", ".join(recurrent or types) or "this model", kinds, where)


def _unnamed(types: list[str], config: Mapping[str, Any]) -> set[str]:
    """Kinds of layers, attention apart, that transformers finds where config.json lists none."""
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int):
        return set()
    attention = config.get("full_attn_idxs")
    if "lfm2" in types and isinstance(attention, list):
        places = {index for index in attention if isinstance(index, int) and 0 <= index < layers}
        return {"conv"} if len(places) < layers else set()
    if types == ["minimax"] and layers == 1:  # every second layer keeps a state
        return set()
    return {kind for kind, models in _UNLISTED.items() if models & set(types)}


def refuse_memory(model: str, kinds: list[str], where: str) -> NoReturn:
    """The error for a model whose past cannot be taken back token by token."""
    detail = f" ({', '.join(kinds)})" if kinds else ""
    raise DistillSpecError(
        f"the memory of {model}{detail} cannot be rolled back",
        where=where,
        fix="use a model whose layers are all attention; recurrent layers are not supported",
    )
