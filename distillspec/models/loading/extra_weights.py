"""Weights in a file that the model does not use: which of them may be left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from distillspec.recipe.weights_file import StoredTensor

_BUFFERS = "buffers that the model computes itself"
_MORE_TOKENS = "heads that predict several tokens at once (MTP)"

_FREQUENCIES = re.compile(r"(^|\.)(original_)?inv_freq$")
_POSITIONS = re.compile(r"(^|\.)position_ids$")
_MASK = re.compile(
    r"(^|\.)attn(ention)?\.(masked_)?bias$|(^|\.)(self_attention|attention)\.(masked_)?bias$"
)
_MTP = re.compile(r"(^|\.)(mtp|mtp_[a-z_]+|nextn_[a-z_]+)(\.|$)")
_LAYER = re.compile(r"(^|\.)layers\.(\d+)\.")
_MTP_LAYERS = ("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_layers")


class ExtraWeights(NamedTuple):
    """Weights that the model does not use.

    Attributes:
        known: Names by what they are; loading may leave them out.
        unknown: All other names, in order.
    """

    known: dict[str, list[str]]
    unknown: list[str]


def explain_extra(
    names: Iterable[str], stored: Mapping[str, StoredTensor], config: Mapping[str, Any]
) -> ExtraWeights:
    """Sort the weights that transformers could not assign.

    Known weights are of two kinds. Older versions of transformers saved buffers as weights: rotary
    frequencies, causal masks, position ids. Some models have layers that predict further tokens,
    which no causal language model of transformers has. All other weights may belong to a part of
    the model that is missing.

    Args:
        names: The weights that transformers could not assign.
        stored: All weights of the files. Loading may rename weights, so a name may be absent.
        config: Content of config.json.
    """
    known: dict[str, list[str]] = {}
    unknown = []
    for name in sorted(names):
        if _is_buffer(name, stored.get(name)):
            known.setdefault(_BUFFERS, []).append(name)
        elif _MTP.search(name) or _is_further_layer(name, config):
            known.setdefault(_MORE_TOKENS, []).append(name)
        else:
            unknown.append(name)
    return ExtraWeights(known, unknown)


def _is_buffer(name: str, tensor: StoredTensor | None) -> bool:
    if _FREQUENCIES.search(name) or _POSITIONS.search(name):
        return True
    if tensor is None or not _MASK.search(name):
        return False
    # [1, 1, T, T], or the one number that stands for "hidden": a trained bias is a vector.
    return len(tensor.shape) == 4 or tensor.shape in ((), (1,))


def _is_further_layer(name: str, config: Mapping[str, Any]) -> bool:
    """A layer after the last one, if config.json says that such layers predict further tokens."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    layers, further = (
        text.get("num_hidden_layers"),
        sum(_integer(text.get(key)) for key in _MTP_LAYERS),
    )
    match = _LAYER.search(name)
    if match is None or not isinstance(layers, int):
        return False
    return layers <= int(match.group(2)) < layers + further


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
