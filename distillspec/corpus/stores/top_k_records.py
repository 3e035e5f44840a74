"""A record of the top-k store: a distribution packed into a fixed number of bytes, and back.

| field | bytes | holds |
|---|---|---|
| `ids` | 2 k | lower 16 bits of the k most probable tokens, most probable first |
| `high` | k, from a vocabulary of 2**16 on | bits 16 to 23 of the ids |
| `log_probability` | 2 k or 4 k | nats, float16 or float32 |
| `log_rest` | 4 | log of the mass of all other tokens, nats, float32 |

All fields are little-endian, in this order, without gaps.

Records hold log-probabilities, since half precision rounds a probability below 6e-8 to 0, where
reverse KL is infinite. The type is float16, since bfloat16 moves a gradient of KL eight times as
far (`eval/bench/topk.py rounding`). The slope of a total variation jumps where q equals p, so any
rounding changes it there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distillspec.divergence.top_tokens import TopTokens
from distillspec.recipe.target_logits import CachedTargetConfig

Records = NDArray[np.void]

_LARGEST_VOCABULARY = 2**24


def record_type(signal: CachedTargetConfig, vocab_size: int) -> np.dtype[np.void]:
    """The dtype of a record with `signal.k` of `vocab_size` tokens.

    Its size is `signal.bytes_per_token(vocab_size)`.
    """
    assert 1 <= signal.k <= vocab_size <= _LARGEST_VOCABULARY
    value = "<f2" if signal.dtype == "float16" else "<f4"
    fields: list[Any] = [("ids", "<u2", (signal.k,))]
    if vocab_size > 2**16:
        fields.append(("high", "u1", (signal.k,)))
    fields += [("log_probability", value, (signal.k,)), ("log_rest", "<f4")]
    return np.dtype(fields)


def packed(top: TopTokens, dtype: np.dtype[np.void]) -> Records:
    """TopTokens of N positions -> N records."""
    records = np.zeros(top.ids.shape[0], dtype)
    ids = top.ids.cpu().numpy()
    records["ids"] = ids & 0xFFFF
    if "high" in _names(dtype):
        records["high"] = ids >> 16
    records["log_probability"] = top.log_probability.cpu().float().numpy()
    records["log_rest"] = top.log_rest.cpu().float().numpy()
    return records


def unpacked(records: Records, vocab_size: int) -> TopTokens:
    """N records -> TopTokens in float32; the records may be mapped from a file."""
    ids = records["ids"].astype(np.int32)
    if "high" in _names(records.dtype):
        # Widened first: a shift of one byte by 16 bits would lose it.
        ids |= records["high"].astype(np.int32) << 16
    return TopTokens(
        torch.from_numpy(ids),
        torch.from_numpy(records["log_probability"].astype(np.float32)),
        torch.from_numpy(records["log_rest"].astype(np.float32)),
        vocab_size,
    )


def _names(dtype: np.dtype[Any]) -> tuple[str, ...]:
    return dtype.names or ()
