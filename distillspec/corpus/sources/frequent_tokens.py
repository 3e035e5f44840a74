"""The most frequent tokens of some texts, for a draft head with part of the vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError


class FrequentTokens(NamedTuple):
    """The chosen tokens.

    Attributes:
        tokens: Their ids, ascending.
        share: Share of the counted tokens that they cover, in [0, 1].
    """

    tokens: Tokens
    share: float


def covering(texts: Iterable[Sequence[int]], tokens: Tokens) -> FrequentTokens:
    """These tokens, and the share of the texts that they cover; 0 without text."""
    counts = Counter(token for text in texts for token in text)
    covered = sum(counts[token] for token in tokens)
    return FrequentTokens(tokens, covered / counts.total() if counts else 0.0)


def frequent_tokens(
    texts: Iterable[Sequence[int]], keep: int, *, always: frozenset[int], vocab_size: int
) -> FrequentTokens:
    """The `keep` most frequent tokens; among equally frequent ones the lowest ids.

    Args:
        texts: The texts to count.
        keep: Number of tokens.
        always: Tokens that are chosen in any case.
        vocab_size: Number of tokens to choose from.

    Raises:
        DistillSpecError: `keep` exceeds the vocabulary or is too small for `always`, or there is no
            text.
    """
    where = f"pair.draft_head.keep={keep}"
    if not len(always) <= keep <= vocab_size:
        raise DistillSpecError(
            f"the draft's head cannot keep {keep} tokens",
            where=where,
            fix=f"set it from {len(always)} (end of text and special tokens) to {vocab_size} (all)",
        )
    counts = Counter(token for text in texts for token in text)
    if not counts:
        raise DistillSpecError(
            "there is no text to count tokens in",
            where=where,
            fix="let the target sample (distill.source.target), or use data with responses",
        )
    others = (token for token in range(vocab_size) if token not in always)
    ordered = sorted(others, key=lambda token: (-counts[token], token))
    chosen = sorted([*always, *ordered[: keep - len(always)]])
    return FrequentTokens(tuple(chosen), sum(counts[token] for token in chosen) / counts.total())
