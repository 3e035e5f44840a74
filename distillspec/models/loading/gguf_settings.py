"""Settings of a GGUF file: copied into the transformers configuration, or refused.

For each architecture, transformers has a table of settings. It silently drops all other settings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from distillspec.models.loading.gguf_header import GgufHeader

# Architectures with one kind of rotary positions, over all channels of a head.
_PLAIN_ROPE = ("llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe")
_SCALING = "rope.scaling."
_YARN_BETAS = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
# Llama 3.1 to 3.3 differ only in the factor, which is the largest of those in the file.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# These settings have no effect on the result, or only on weight shapes, which loading checks.
_LEFT_OUT = frozenset(
    {
        "context_length",
        "vocab_size",
        "embedding_length",
        "feed_forward_length",
        "expert_feed_forward_length",
        "expert_shared_feed_forward_length",
        "attention.key_length",
        "attention.value_length",
        "tensor_data_layout",
    }
)


def carry_settings(header: GgufHeader, config: PretrainedConfig) -> None:
    """Write into `config` the settings that transformers dropped.

    Raises:
        DistillSpecError: The file has a model setting that `config` cannot hold.
    """
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf.utils import is_gguf_arch_supported

    _carry_rope(header, config)
    if is_gguf_arch_supported(header.architecture):
        return  # transformers reads these architectures in code, not from its table
    tables: Any = GGUF_CONFIG_MAPPING
    table = tables.get(config.model_type.removesuffix("_text"), {})
    unread = []
    for name, value in header.model_settings.items():
        if name.startswith(_SCALING) or name in _LEFT_OUT or table.get(name):
            continue
        if name in _COMPARED:
            same = _is_equal(value, _COMPARED[name](config))
        else:
            same = not value  # llama.cpp writes 0 for what a model does not have
        if not same:
            unread.append(f"{name} = {value}")
    if unread:
        header.refuse(
            f"the conversion would leave out settings of the GGUF file ({len(unread)})", unread
        )


# --- rotary positions ----------------------------------------------------------------------------


def _carry_rope(header: GgufHeader, config: PretrainedConfig) -> None:
    """Copy the scaling of rotary positions, if transformers computes the same."""
    scaling = {
        name.removeprefix(_SCALING): value
        for name, value in header.model_settings.items()
        if name.startswith(_SCALING)
    }
    # llama.cpp reads a factor without a type as linear.
    kind = scaling.get("type", "linear" if scaling.get("factor") else "none")
    factors = header.rope_factors
    # Factors of 1 scale nothing.
    if kind == "none" and (factors is None or set(factors) == {1.0}):
        return
    scaling_name = kind if factors is None else "rope_freqs.weight"
    rope = getattr(config, "rope_parameters", None) or {}
    translated = None
    # A file with both a factor tensor and a type of scaling is refused.
    if header.architecture in _PLAIN_ROPE and rope.get("rope_type") == "default":
        if factors is None:
            translated = _scaled(kind, scaling)
        elif kind == "none":
            translated = _llama3(config, factors)
    if translated is None:
        header.refuse(
            f"the GGUF file scales rotary positions ({scaling_name}), which cannot be converted"
        )
    config.rope_parameters = rope | translated


def _scaled(kind: str, scaling: dict[str, Any]) -> dict[str, Any] | None:
    """The scaling in transformers' terms, or None if transformers may compute it differently."""
    known = {"type", "factor", "finetuned", "original_context_length"}
    if not scaling.get("factor"):
        return None
    # A key that is not known may change the result.
    if kind == "linear" and set(scaling) <= known:
        return {"rope_type": "linear", "factor": float(scaling["factor"])}
    if kind == "yarn" and set(scaling) <= known | set(_YARN_BETAS):
        if "original_context_length" not in scaling:
            return None
        betas = {_YARN_BETAS[key]: float(scaling[key]) for key in set(scaling) & set(_YARN_BETAS)}
        return {
            "rope_type": "yarn",
            "factor": float(scaling["factor"]),
            "original_max_position_embeddings": int(scaling["original_context_length"]),
            **betas,
        }
    return None


def _llama3(config: PretrainedConfig, factors: tuple[float, ...]) -> dict[str, Any] | None:
    """The settings of Llama 3.x that give these factors, or None if they give other factors."""
    rope = {"rope_type": "llama3", "factor": max(factors), **_LLAMA3}
    scaled = copy.deepcopy(config)
    scaled.rope_parameters = scaled.rope_parameters | rope
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, torch.device("cpu"))
    steps = torch.arange(len(frequencies)) / len(frequencies)
    plain = config.rope_parameters["rope_theta"] ** -steps
    if len(frequencies) != len(factors):
        return None
    wanted = plain / torch.tensor(factors)
    return rope if torch.allclose(frequencies, wanted, rtol=1e-4, atol=0.0) else None


# --- settings that the configuration may hold by default -----------------------------------------


def _rotary_width(config: PretrainedConfig) -> float | None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    share = (getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", 1.0)
    return float(head * share)


def _rope_theta(config: PretrainedConfig) -> float | None:
    return (getattr(config, "rope_parameters", None) or {}).get("rope_theta")


def _attribute(name: str) -> Callable[[PretrainedConfig], Any]:
    return lambda config: getattr(config, name, None)


_COMPARED: dict[str, Callable[[PretrainedConfig], Any]] = {
    "rope.dimension_count": _rotary_width,
    "rope.freq_base": _rope_theta,
    "attention.sliding_window": _attribute("sliding_window"),
    "attention.causal": lambda _: True,
    "attn_logit_softcapping": _attribute("attn_logit_softcapping"),
    "final_logit_softcapping": _attribute("final_logit_softcapping"),
    "logit_scale": _attribute("logit_scale"),
    "use_parallel_residual": _attribute("use_parallel_residual"),
    "expert_weights_norm": _attribute("norm_topk_prob"),
}


def _is_equal(stated: Any, converted: Any) -> bool:
    if isinstance(stated, int | float) and isinstance(converted, int | float):
        return math.isclose(stated, converted, rel_tol=1e-5)  # a GGUF file holds float32
    return bool(stated == converted)
