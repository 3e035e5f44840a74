from __future__ import annotations

import torch

from distillspec.corpus.batches.tree_rows import (
    RejectedBranch,
    RejectedBranches,
    TreeRow,
    collate_trees,
    packed,
)

ROW = TreeRow(
    prompt=(5, 6),
    response=(7, 8, 9),
    branches=RejectedBranches(
        weights=(1.0, 0.5, 1.0),
        sides=[RejectedBranch(0, (3,), (0.25,)), RejectedBranch(2, (4, 2), (0.5, 0.125))],
    ),
)
SHORT = TreeRow((1,), (2,), RejectedBranches.of_text(1))


def test_sides_stand_behind_the_text_with_the_positions_they_would_have_had() -> None:
    batch = collate_trees([[ROW], [SHORT]], pad_token=0)
    assert batch.tree is not None
    assert batch.tokens.tolist() == [[5, 6, 7, 8, 9, 3, 4, 2], [1, 2, 0, 0, 0, 0, 0, 0]]
    assert batch.tree.positions[0].tolist() == [0, 1, 2, 3, 4, 2, 4, 5]
    assert batch.is_token.sum(1).tolist() == [8, 2]
    assert batch.is_response[0].tolist() == [False, False, True, True, True, *[False] * 3]


def test_a_token_sees_its_own_branch_and_nothing_else() -> None:
    batch = collate_trees([[ROW], [SHORT]], pad_token=0)
    assert batch.tree is not None
    seen = [
        batch.tokens[0][row].tolist()
        for row in batch.tree.sees[0]
    ]  # fmt: skip
    assert seen == [
        [5],
        [5, 6],
        [5, 6, 7],
        [5, 6, 7, 8],
        [5, 6, 7, 8, 9],
        [5, 6, 3],
        [5, 6, 7, 8, 4],
        [5, 6, 7, 8, 4, 2],
    ]
    assert batch.tree.sees.any(2).all()  # padding sees itself: a softmax over nothing is no number


def test_each_state_has_its_weight() -> None:
    batch = collate_trees([[ROW], [SHORT]], pad_token=0)
    assert batch.tree is not None
    states = [
        (batch.tokens[0][batch.tree.sees[0, at]].tolist(), float(batch.tree.weights[0, at]))
        for at in batch.tree.predicts[0].nonzero()[:, 0]
    ]
    assert states == [
        ([5, 6], 1.0),
        ([5, 6, 7], 0.5),
        ([5, 6, 7, 8], 1.0),
        ([5, 6, 3], 0.25),
        ([5, 6, 7, 8, 4], 0.5),
        ([5, 6, 7, 8, 4, 2], 0.125),
    ]
    assert batch.tree.weights[~batch.tree.predicts].count_nonzero() == 0
    assert torch.equal(batch.tree.predicts[1].nonzero(), torch.tensor([[0]]))


def test_packed_texts_do_not_see_each_other() -> None:
    batch = collate_trees([[ROW, SHORT], [SHORT]], pad_token=0)
    assert batch.tree is not None
    assert batch.tokens[0].tolist() == [5, 6, 7, 8, 9, 3, 4, 2, 1, 2]
    assert batch.tree.positions[0, 8:].tolist() == [0, 1]
    seen = [batch.tokens[0][batch.tree.sees[0, at]].tolist() for at in (7, 8, 9)]
    assert seen == [[5, 6, 7, 8, 4, 2], [1], [1, 2]]
    assert batch.tree.lengths.tolist() == [6, 1, 1]
    assert batch.tree.weights[0, 8:].tolist() == [1.0, 0.0]
    assert batch.is_token.sum(1).tolist() == [10, 2]


def test_more_than_the_response_may_be_in_the_loss() -> None:
    batch = collate_trees(
        [[TreeRow((5, 6, 7), (8,), RejectedBranches.of_text(3, 0.5))]], pad_token=0
    )
    assert batch.tree is not None
    assert batch.tree.predicts[0].tolist() == [True, True, True, False]
    assert batch.tree.weights[0].tolist() == [0.5, 0.5, 0.5, 0.0]


def test_texts_are_packed_into_few_rows_and_none_is_cut() -> None:
    texts = [TreeRow((1,) * n, (), RejectedBranches((), [])) for n in (7, 3, 5, 2, 5, 1)]
    groups = packed(texts, 8)
    assert [[text.tokens for text in group] for group in groups] == [[7, 1], [5, 3], [5, 2]]
    assert [[text.tokens for text in group] for group in packed(texts[:2], 4)] == [[7], [3]]
