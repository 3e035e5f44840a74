"""Configuration keys of transformers 4.57, and of engines built on it, for exported folders.

transformers 5 writes only `rope_parameters`, `dtype` and the tokenizer class `TokenizersBackend`.
transformers 4.57 ignores the first without a warning (RoPE's base is then 10,000, without scaling),
older versions ignore the second, and neither has that class. Exported folders have both sets of
keys with the same meaning, so that every version reads the same model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillspec.recipe.model_files import model_files
from distillspec.recipe.weights_file import stored_tensors
from distillspec.runtime import atomic

Config = dict[str, Any]

# RoPE types with only a base. `axial` is the position in an image: 4.57 has no type for it, since
# a vision stack has no other RoPE.
_PLAIN = ("default", "axial")
_TYPES = {"linear", "dynamic", "yarn", "longrope", "llama3"}
_GPT_NEOX = ("gpt_neox", "gpt_neox_japanese")
# Models with RoPE by kind of layer: the old keys of the base of full and of sliding attention.
_BY_LAYER = {
    "gemma3_text": ("rope_theta", "rope_local_base_freq"),
    "gemma3n_text": ("rope_theta", "rope_local_base_freq"),
    "modernbert-decoder": ("global_rope_theta", "local_rope_theta"),
}
_SCALES = "scale_decoder_outputs"  # of T5 models; 1.1 and FLAN do not scale
_ROPE = "rope_parameters"
_FULL, _SLIDING = "full_attention", "sliding_attention"
_OLD_CLASS = "PreTrainedTokenizerFast"


def add_old_keys(folder: Path) -> str | None:
    """Add the old keys to config.json and tokenizer_config.json in `folder`.

    Returns:
        A sentence for the model's card about settings without old keys; None if there are none.
    """
    config = _read(folder / "config.json")
    old, is_readable = old_config(config, has_head=_SCALES in config and _has_head(folder))
    atomic.write_json(folder / "config.json", old)
    path, fast_form = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if path.exists() and fast_form.exists():
        adds = adds_special_tokens(_read(fast_form))
        atomic.write_json(path, old_tokenizer_config(_read(path), adds_special_tokens=adds))
    return None if is_readable else _UNREADABLE


_UNREADABLE = (
    "Do not load this folder with transformers before 5, nor with an engine built on it: "
    "config.json has settings (`rope_parameters` or `scale_decoder_outputs`) that have no keys "
    "there, so it would be read wrongly without a warning."
)


def old_config(config: Config, *, has_head: bool = False) -> tuple[Config, bool]:
    """`config` with the old keys, and whether transformers 4.57 reads all of it correctly.

    A model with images or with two stacks has RoPE in nested configurations (`text_config`,
    `decoder`). Each has its model type and gets its old keys.
    """
    keys = old_config_keys(config, has_head=has_head)
    merged, is_readable = {**config, **(keys or {})}, keys is not None
    for name, value in config.items():
        if isinstance(value, dict) and _holds_rope(value):
            merged[name], is_nested_readable = old_config(value)
            is_readable = is_readable and is_nested_readable
    return merged, is_readable


def _holds_rope(config: Config) -> bool:
    """Whether it is or contains a configuration with RoPE."""
    parts = [value for value in config.values() if isinstance(value, dict)]
    return bool(config.get(_ROPE)) or any(map(_holds_rope, parts))


def old_config_keys(config: Config, *, has_head: bool = False) -> Config | None:
    """The keys that one configuration lacks for transformers 4.57; None if 4.57 has no such keys.

    Args:
        config: config.json of transformers 5, or a part of it.
        has_head: Whether the weights contain a separate output head; only used for T5 models.
    """
    old_keys: Config = {}
    if config.get("dtype") is not None:
        old_keys["torch_dtype"] = config["dtype"]
    if _SCALES in config:
        # 4.57 scales exactly the models with a tied head; 5 writes `true` for all.
        if config[_SCALES] == has_head:
            return None
        old_keys["tie_word_embeddings"] = not has_head
    rope = config.get(_ROPE)
    if not rope:
        return old_keys
    kind = str(config.get("model_type"))
    by_layer = {key: value for key, value in rope.items() if isinstance(value, dict)}
    if by_layer:
        keys = _of_layers(kind, by_layer)
    elif kind == "phi3":
        keys = _of_phi3(rope)
    elif kind == "phimoe":
        keys = _of_phimoe(rope)
    else:
        keys = _of_all_layers(rope)
    if keys is None:
        return None
    # GPT-NeoX has other names for the base and for the rotated share of a head.
    if kind in _GPT_NEOX:
        keys["rotary_emb_base"] = keys["rope_theta"]
        keys["rotary_pct"] = keys.pop("partial_rotary_factor", 1.0)
    return {**old_keys, **keys}


def _of_all_layers(rope: Config) -> Config | None:
    """rope_theta, rope_scaling (null for none) and, if present, partial_rotary_factor."""
    kind = rope.get("rope_type", "default")
    if kind not in {*_PLAIN, *_TYPES} or "rope_theta" not in rope:
        return None
    apart = ("rope_theta", "partial_rotary_factor")
    scaling = {key: value for key, value in rope.items() if key not in apart}
    is_plain = set(scaling) <= {"rope_type"} and kind in _PLAIN
    if kind == "axial" and not is_plain:
        return None
    keys: Config = {"rope_theta": rope["rope_theta"], "rope_scaling": None if is_plain else scaling}
    if "partial_rotary_factor" in rope:
        keys["partial_rotary_factor"] = rope["partial_rotary_factor"]
    return keys


def _of_phi3(rope: Config) -> Config | None:
    """4.57 checks that the scaling has three fields, one of them named `type`."""
    keys = _of_all_layers(rope)
    if keys is None or keys["rope_scaling"] is None:
        return keys
    scaling = keys["rope_scaling"]
    if scaling["rope_type"] != "longrope":
        return None
    factors = {name: scaling[name] for name in ("short_factor", "long_factor")}
    return {**keys, "rope_scaling": {"type": "longrope", **factors}}


def _of_phimoe(rope: Config) -> Config | None:
    """4.57 refuses a scaling without the two scales, and fails in a forward without the length."""
    keys = _of_all_layers(rope)
    wanted = {"short_mscale", "long_mscale", "original_max_position_embeddings"}
    if keys is None or keys["rope_scaling"] is None:
        return keys
    return keys if wanted <= set(keys["rope_scaling"]) else None


def _of_layers(kind: str, rope: Config) -> Config | None:
    """Keys of a model with a RoPE per kind of layer; None if 4.57 has one RoPE for all layers."""
    full, sliding = rope.get(_FULL), rope.get(_SLIDING)
    if full is None or sliding is None or set(rope) != {_FULL, _SLIDING}:
        return None
    keys, local = _of_all_layers(full), _of_all_layers(sliding)
    if keys is None or local is None:
        return None
    if kind in _BY_LAYER and local["rope_scaling"] is None:
        base, local_base = _BY_LAYER[kind]
        keys[local_base] = local["rope_theta"]
        keys[base] = keys.pop("rope_theta")
        return keys
    # 4.57 scales only full attention of Olmo 3; all other models have one RoPE for all layers.
    is_olmo = kind == "olmo3" and {**keys, "rope_scaling": None} == local
    return keys if is_olmo or keys == local else None


def old_tokenizer_config(config: Config, *, adds_special_tokens: bool) -> Config:
    """tokenizer_config.json for both versions, of a tokenizer with a complete tokenizer.json.

    In both versions, the class that it names reads tokenizer.json unchanged.

    Args:
        config: tokenizer_config.json of transformers 5.
        adds_special_tokens: Whether the tokenizer adds special tokens to a text.
    """
    merged = {**config, "tokenizer_class": _OLD_CLASS}
    extra = merged.get("extra_special_tokens")
    if isinstance(extra, list):  # 4.57 accepts only a dict under this name
        merged["additional_special_tokens"] = merged.pop("extra_special_tokens")
    # Without this key, 4.57 returns token_type_ids, which generate refuses.
    merged.setdefault("model_input_names", ["input_ids", "attention_mask"])
    if not adds_special_tokens:
        # Without this key, llama.cpp puts the token before each prompt of some pre-tokenizers.
        merged.setdefault("add_bos_token", False)
    return merged


def adds_special_tokens(tokenizer: Config) -> bool:
    """Whether the tokenizer of this tokenizer.json adds special tokens to a text."""
    processor = tokenizer.get("post_processor") or {"type": "Sequence", "processors": []}
    processors = processor["processors"] if processor["type"] == "Sequence" else [processor]
    # A template names the tokens that it adds. BERT's and RoBERTa's processors always add some.
    return any(
        part["type"] != "ByteLevel"
        and not (part["type"] == "TemplateProcessing" and not part["special_tokens"])
        for part in processors
    )


def _has_head(folder: Path) -> bool:
    return "lm_head.weight" in stored_tensors(model_files(folder).weights)


def _read(path: Path) -> Config:
    value: Config = json.loads(path.read_text(encoding="utf-8"))
    return value
