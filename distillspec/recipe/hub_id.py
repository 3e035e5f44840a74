"""What can only mean a repository of the Hugging Face Hub. Imports no torch."""

from __future__ import annotations

import os
import re

from distillspec.recipe.builtin import located, published

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")  # what the Hub allows


def is_hub_id(path: str) -> bool:
    """Whether `path` can only mean a repository of the Hugging Face Hub: `org/name`, no folder."""
    # os.path answers, where Path raises: for places that this user may not look into.
    if os.path.exists(located(path)) or path.startswith((".", "~", os.sep)):
        return False
    if published(path) is not None:
        return False
    return bool(_ID.fullmatch(path)) and not os.path.isdir(path.partition("/")[0])
