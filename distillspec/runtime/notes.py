"""What is worth telling about a model, once: models are loaded many times in one run."""

from __future__ import annotations

import logging
from functools import cache

log = logging.getLogger(__name__)


@cache
def say_once(note: str) -> None:
    """Log `note`, unless this process has done so."""
    log.warning("%s", note)
