"""Distil a draft model for speculative decoding, and measure what it gains. Imports no torch.

The public API is `__all__`. Each name is imported when it is first used, since most need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillspec.recipe.loading import load_recipe
    from distillspec.workflows.decode import decode
    from distillspec.workflows.library import divergences, evaluate, train, verification_rules

__all__ = [
    "__version__",
    "decode",
    "divergences",
    "evaluate",
    "load_recipe",
    "train",
    "verification_rules",
]

__version__ = "0.2.0"

_MODULES = {
    "decode": "distillspec.workflows.decode",
    "divergences": "distillspec.workflows.library",
    "evaluate": "distillspec.workflows.library",
    "load_recipe": "distillspec.recipe.loading",
    "train": "distillspec.workflows.library",
    "verification_rules": "distillspec.workflows.library",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'distillspec' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
