from __future__ import annotations

from distillspec.speculation.tree import Tree


def test_shared_beginnings_are_stored_once_and_every_draw_is_kept() -> None:
    tree = Tree.of([[5, 6, 7], [5, 6, 8], [5, 9, 7], [5, 6, 8]])
    assert tree.tokens == (5, 6, 7, 8, 9, 7)
    assert tree.parents == (0, 1, 2, 2, 1, 5)
    assert tree.drawn == ((0, 0, 0, 0), (1, 1, 4, 1), (2, 3, 3), (), (), (5,), ())
    assert tree.q_rows == (0, 1, 2, -1, -1, 8, -1)
    assert tree.depths() == [1, 2, 3, 3, 2, 3]


def test_a_path_leads_back_to_the_root() -> None:
    tree = Tree.of([[1, 2], [1, 3]])
    child = tree.child(1, 3)
    assert child is not None
    assert tree.path(child + 1) == [0, child]
    assert tree.path(0) == []
    assert tree.child(0, 2) is None


def test_sequences_may_end_early_and_there_may_be_none() -> None:
    tree = Tree.of([[1], [1, 2]])
    assert tree.drawn == ((0, 0), (1,), ())
    assert tree.q_rows == (0, 3, -1)
    assert len(Tree.of([])) == 0
    assert Tree.of([]).drawn == ((),)
