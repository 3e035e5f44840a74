from __future__ import annotations

from collections.abc import Sequence

from distillspec.speculation.parallel.candidates import (
    ROOT,
    Candidates,
    Child,
    Snapshot,
    most_probable_path,
)


def children(*pairs: tuple[int, float]) -> list[Child]:
    return [Child(token, log_q) for token, log_q in pairs]


def paths(candidates: Candidates) -> list[list[int]]:
    """By node, the tokens on its way."""
    paths: list[list[int]] = []
    for node in candidates.nodes:
        before = [] if node.parent == ROOT else paths[node.parent]
        paths.append([*before, node.token])
    return paths


def two_layers() -> Candidates:
    """5 (-1) and 6 (-2), then the best two of 5-7 (-1.5), 5-8 (-3), 6-7 (-2.25), 6-9 (-4)."""
    candidates = Candidates(width=2, depth=3)
    candidates.extend(candidates.frontier(), [children((5, -1.0), (6, -2.0))])
    candidates.extend(
        candidates.frontier(), [children((7, -0.5), (8, -2.0)), children((7, -0.25), (9, -2.0))]
    )
    return candidates


def test_a_layer_holds_the_most_probable_paths_of_all_parents() -> None:
    candidates = two_layers()
    assert paths(candidates) == [[5], [6], [5, 7], [6, 7]]
    assert [node.log_weight for node in candidates.nodes] == [-1.0, -2.0, -1.5, -2.25]
    assert candidates.frontier() == [2, 3]


def test_the_text_itself_is_asked_for_first_and_a_full_tree_asks_for_nothing() -> None:
    candidates = Candidates(width=1, depth=1)
    assert candidates.frontier() == [ROOT]
    candidates.extend([ROOT], [children((5, -1.0))])
    assert candidates.frontier() == []


def test_a_text_that_goes_on_along_a_node_keeps_what_is_below_it() -> None:
    candidates = two_layers()
    descent = candidates.descend([6])
    assert (descent.path, descent.is_whole, descent.survivors) == ([1], True, [3])
    assert paths(candidates) == [[7]]
    assert candidates.nodes[0].log_weight == -0.25
    assert candidates.nodes[0].depth == 1
    assert candidates.frontier() == [0]


def test_a_layer_that_pruning_emptied_is_made_again_from_what_is_known() -> None:
    """All of layer 2 was below 5; after 6 its own best children are the new layer."""
    candidates = Candidates(width=2, depth=3)
    candidates.extend([ROOT], [children((5, -1.0), (6, -2.0))])
    candidates.extend([0, 1], [children((7, -0.1), (8, -0.2)), children((9, -3.0), (3, -4.0))])
    assert paths(candidates) == [[5], [6], [5, 7], [5, 8]]
    descent = candidates.descend([6])
    assert descent.survivors == []
    assert paths(candidates) == [[9], [3]]
    assert candidates.frontier() == [0, 1]


def test_a_deeper_layer_is_made_again_too_by_the_most_probable_of_its_parents() -> None:
    candidates = Candidates(width=2, depth=4)
    candidates.extend([ROOT], [children((1, -0.1), (2, -0.5))])
    candidates.extend([0, 1], [children((3, -0.1), (4, -5.0)), children((5, -0.2), (6, -6.0))])
    candidates.extend([2, 3], [children((7, -0.1), (8, -0.2)), children((9, -7.0), (3, -8.0))])
    assert paths(candidates)[4:] == [[1, 3, 7], [1, 3, 8]]
    candidates.descend([2])
    assert paths(candidates) == [[5], [5, 9], [5, 3]]
    assert candidates.nodes[1].log_weight == -0.2 - 7.0


def test_a_text_that_leaves_the_tree_forgets_all() -> None:
    candidates = two_layers()
    descent = candidates.descend([5, 3])
    assert (descent.path, descent.is_whole, descent.survivors) == ([0], False, [])
    assert candidates.nodes == []
    assert candidates.frontier() == [ROOT]


def test_a_node_whose_children_are_unknown_leads_to_an_empty_tree() -> None:
    candidates = two_layers()
    assert candidates.descend([5, 7]).is_whole
    assert candidates.nodes == []
    assert candidates.frontier() == [ROOT]


def test_no_token_changes_nothing() -> None:
    candidates = two_layers()
    before = candidates.snapshot()
    assert candidates.descend([]).survivors == [0, 1, 2, 3]
    assert candidates.snapshot() == before


def path(snapshot: Snapshot, tokens: Sequence[int], longest: int = 9) -> list[int]:
    return most_probable_path(snapshot, tokens, longest)


def test_the_most_probable_child_is_followed_step_by_step() -> None:
    snapshot = two_layers().snapshot()
    assert path(snapshot, []) == [5, 7]
    assert path(snapshot, [], longest=1) == [5]
    assert path(snapshot, [6]) == [7]
    assert path(snapshot, [5, 7]) == []


def test_a_reader_who_is_further_than_the_tree_finds_nothing() -> None:
    snapshot = two_layers().snapshot()
    assert path(snapshot, [4]) == []
    assert path(snapshot, [5, 7, 1]) == []
    assert path(Snapshot([], [], []), []) == []
