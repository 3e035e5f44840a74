"""A summary's records are found by what they are."""

from __future__ import annotations

from distillspec.measure.summary import Summary


def test_cells_are_found_by_what_they_are(by_hand: Summary) -> None:
    cell = by_hand.cell("distilled", "standard", 4, 1.0)
    assert cell is not None
    assert (cell.draft, cell.gamma, cell.temperature) == ("distilled", 4, 1.0)
    assert by_hand.cell("distilled", "standard", 5, 1.0) is None
    assert by_hand.drafts() == ["undistilled", "distilled", "control"]
    assert (by_hand.gammas(), by_hand.temperatures()) == ([2, 4], [0.0, 1.0])
    assert by_hand.methods() == ["standard"]
