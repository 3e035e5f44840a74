"""The word that a misspelt one was probably meant to be."""

from __future__ import annotations

import difflib


def nearest(word: str, words: list[str]) -> str | None:
    """The one of `words` that `word` was probably meant to be."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return close[0] if close else None
