"""Where the loss is, and what each token weighs."""

from __future__ import annotations

import pytest

from distillspec.corpus.batches.batching import collate
from distillspec.training.loss_positions import predicts_response, token_weights, tokens_per_text

ROWS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((5, 6), (6, 8, 0)),
    ((9,), (10,)),
    ((11, 12, 13, 14), (6, 40)),
    ((17, 18, 19), ()),
]


def test_the_position_before_a_response_token_predicts_it() -> None:
    batch = collate([((1, 2), (3, 4)), ((5,), (6,))], pad_token=0)
    assert predicts_response(batch).tolist() == [
        [False, True, True, False],
        [True, False, False, False],
    ]


def test_token_weights_count_tokens_or_sequences() -> None:
    batch = collate(ROWS, pad_token=0)
    assert token_weights(batch, "tokens").tolist() == [1.0] * 6
    by_sequence = token_weights(batch, "sequences")
    assert by_sequence.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0, 0.5, 0.5])
    assert float(by_sequence.sum()) == pytest.approx(3.0)  # rows that have a response


def test_the_tokens_of_each_text_are_counted() -> None:
    assert tokens_per_text(collate(ROWS, pad_token=0)).tolist() == [3, 1, 2, 0]
