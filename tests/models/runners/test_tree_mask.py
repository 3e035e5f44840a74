from __future__ import annotations

import pytest

from distillspec.errors import DistillSpecError
from distillspec.models.runners.tree_mask import TreePaths, check_takes_a_tree
from tests.models.conftest import tiny_model


def test_each_slot_sees_the_text_its_path_and_itself() -> None:
    paths = TreePaths()
    positions, visible = paths.add(3, [2, 3, 3, 4])
    assert positions.tolist() == [3, 4, 4, 5]
    seen = [[slot for slot in range(7) if row[slot]] for row in visible.tolist()]
    assert seen == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 6]]


def test_a_tree_grows_in_several_pieces() -> None:
    paths = TreePaths()
    paths.add(3, [2, 2])
    positions, visible = paths.add(5, [4, 3, 2])
    assert positions.tolist() == [4, 4, 3]
    seen = [[slot for slot in range(8) if row[slot]] for row in visible.tolist()]
    assert seen == [[0, 1, 2, 4, 5], [0, 1, 2, 3, 6], [0, 1, 2, 7]]


def test_a_tree_may_begin_where_nothing_stands() -> None:
    positions, visible = TreePaths().add(0, [-1, 0])
    assert positions.tolist() == [0, 1]
    assert visible.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_model_with_masks_of_its_own_is_refused_with_a_way_out(kind: str) -> None:
    with pytest.raises(DistillSpecError, match="prepared attention mask"):
        check_takes_a_tree(tiny_model(kind))


def test_what_is_kept_of_a_tree_grows_on_after_the_text() -> None:
    """Slot 3 becomes text; 5 (after it) and 6 (after 5) move up, 4 is gone."""
    paths = TreePaths()
    paths.add(3, [2, 3, 3, 5])
    positions, visible = paths.kept(4, [5, 6]).add(6, [3, 4, 5])
    assert positions.tolist() == [4, 5, 6]
    seen = [[slot for slot in range(9) if row[slot]] for row in visible.tolist()]
    assert seen == [[0, 1, 2, 3, 6], [0, 1, 2, 3, 4, 7], [0, 1, 2, 3, 4, 5, 8]]


def test_a_tree_of_which_nothing_is_kept_starts_again_anywhere() -> None:
    paths = TreePaths()
    paths.add(3, [2, 3])
    positions, _ = paths.kept(4, []).add(9, [8])
    assert positions.tolist() == [9]
