"""Distil a draft model for speculative decoding, and measure what it gains. Imports no torch.

As a library: `distillspec.decode(target, draft, prompt)` streams tokens with their fates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillspec.workflows.decode import decode as decode

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`decode` needs torch: it is imported when it is asked for."""
    if name == "decode":
        from distillspec.workflows.decode import decode

        return decode
    raise AttributeError(f"module 'distillspec' has no attribute {name!r}")
