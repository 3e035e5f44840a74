"""The tokens that texts are made of, the most frequent first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError


class Frequent(NamedTuple):
    """tokens: ascending ids. share: of the counted text that they cover, in [0, 1]."""

    tokens: Tokens
    share: float


def frequent_tokens(
    texts: Iterable[Sequence[int]], keep: int, *, always: frozenset[int], vocab_size: int
) -> Frequent:
    """The `keep` most frequent tokens, those of `always` among them, of equals the lowest ids.

    Tokens that no text has are taken only to fill up, again by their ids. DistillSpecError for
    `keep` beyond the vocabulary or too small for `always`, and for no text at all.
    """
    where = f"pair.draft_head.keep={keep}"
    if not len(always) <= keep <= vocab_size:
        raise DistillSpecError(
            f"the draft's head cannot keep {keep} tokens",
            where=where,
            fix=f"give {len(always)} (end of text and special tokens) to {vocab_size} (all)",
        )
    counts = Counter(token for text in texts for token in text)
    if not counts:
        raise DistillSpecError(
            "there is no text to count tokens in",
            where=where,
            fix="let the target sample (distill.source.target), or bring fixed responses",
        )
    others = (token for token in range(vocab_size) if token not in always)
    ordered = sorted(others, key=lambda token: (-counts[token], token))
    kept = sorted([*always, *ordered[: keep - len(always)]])
    return Frequent(tuple(kept), sum(counts[token] for token in kept) / counts.total())
