"""A summary's records are found by what they are."""

from __future__ import annotations

from dataclasses import replace

from distillspec.measure.stats.intervals import NOTHING
from distillspec.measure.summary.records import Summary


def test_cells_are_found_by_what_they_are(by_hand: Summary) -> None:
    cell = by_hand.cell("distilled", "standard", 4, 1.0)
    assert cell is not None
    assert (cell.draft, cell.gamma, cell.temperature) == ("distilled", 4, 1.0)
    assert by_hand.cell("distilled", "standard", 5, 1.0) is None
    assert by_hand.drafts() == ["undistilled", "distilled", "control"]
    assert (by_hand.gammas(), by_hand.temperatures()) == ([2, 4], [0.0, 1.0])
    assert by_hand.methods() == ["standard"]


def test_what_engines_can_run_is_the_fastest_standard_method(several_methods: Summary) -> None:
    for temperature in (0.0, 1.0, None):
        best = several_methods.servable("distilled", temperature)
        assert best is not None
        assert (best.method, best.gamma, best.speedup.value) == ("standard", 4, 1.6)
        fastest = several_methods.fastest("distilled", temperature)
        assert fastest is not None
        assert fastest.method == "block"
    assert several_methods.servable("control", None) is None
    two = replace(several_methods, standard_methods=["adaedl", "standard"])
    best = two.servable("distilled", None)
    assert best is not None
    assert best.method == "standard"  # not the first one


def test_without_a_method_of_engines_the_fastest_one_is_shown(several_methods: Summary) -> None:
    assert several_methods.shown_method == "standard"
    assert {cell.gamma for cell in several_methods.of_shown_method()} == {2, 4}
    none = replace(several_methods, standard_methods=[])
    assert none.servable("distilled", None) is None
    assert none.shown_method == "block"
    untimed = [replace(one, speedup=NOTHING) for one in none.recommendation]
    assert replace(none, recommendation=untimed).shown_method == "adaedl"
