"""What can only mean a repository of the Hugging Face Hub. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def is_hub_id(path: str) -> bool:
    """Whether `path` can only mean a repository of the Hugging Face Hub: `org/name`, no folder."""
    if Path(path).expanduser().exists() or path.startswith((".", "~", os.sep)):
        return False
    owner, _, name = path.partition("/")
    return bool(owner and name and "/" not in name and not Path(owner).is_dir())
