from __future__ import annotations

import pytest

from distillspec.corpus.sources.frequent_tokens import frequent_tokens
from distillspec.errors import DistillSpecError

TEXTS = [(5, 5, 5, 2), (2, 7), (9,)]
NONE: frozenset[int] = frozenset()


def test_the_most_frequent_tokens_are_kept_with_their_share() -> None:
    assert frequent_tokens(TEXTS, 2, always=NONE, vocab_size=10) == ((2, 5), 5 / 7)


def test_special_tokens_are_kept_with_any_count() -> None:
    assert frequent_tokens(TEXTS, 3, always=frozenset({0, 9}), vocab_size=10).tokens == (0, 5, 9)


def test_of_equals_the_lowest_ids_are_kept_also_among_those_that_no_text_has() -> None:
    assert frequent_tokens(TEXTS, 3, always=NONE, vocab_size=10).tokens == (2, 5, 7)
    assert frequent_tokens(TEXTS, 6, always=NONE, vocab_size=10).tokens == (0, 1, 2, 5, 7, 9)


@pytest.mark.parametrize(("keep", "always"), [(11, NONE), (1, frozenset({0, 1}))])
def test_a_number_that_cannot_be_kept_is_refused(keep: int, always: frozenset[int]) -> None:
    with pytest.raises(DistillSpecError, match=f"cannot keep {keep} tokens"):
        frequent_tokens(TEXTS, keep, always=always, vocab_size=10)


def test_no_text_counts_nothing() -> None:
    with pytest.raises(DistillSpecError, match="no text to count"):
        frequent_tokens([()], 2, always=NONE, vocab_size=10)
