"""The head of the page: the answer first."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from distillspec.measure.stats.intervals import NOTHING, Interval
from distillspec.measure.summary.records import Summary
from distillspec.report.tiles import Tile, facts, tiles, title


def answers(tile: Tile) -> dict[str, str]:
    return dict(tile.answers)


def test_the_tiles_show_the_distilled_draft_with_the_undistilled(by_hand: Summary) -> None:
    shown = tiles(by_hand)
    assert [tile.label for tile in shown] == ["distilled draft, T = 0", "distilled draft, T = 1"]
    for tile in shown:
        assert "undistilled 1.20×" in answers(tile)["By how much?"]


@pytest.mark.parametrize(
    ("speedup", "documents", "words"),
    [
        (Interval(1.5, 1.2, 1.8), 20, "yes"),
        (Interval(0.8, 0.7, 0.9), 20, "no, slower"),
        (Interval(1.5, 0.9, 1.8), 20, "not shown: the interval contains 1"),
        (Interval(1.5, 1.2, 1.8), 3, "not known: 3 documents are too few"),
        (Interval(1.5, math.nan, math.nan), 20, "not known: there is no interval"),
        (Interval(1.5, 1.2, 1.8), 0, "yes"),  # a summary of an earlier version
    ],
)
def test_whether_it_is_faster_follows_from_the_interval(
    by_hand: Summary, speedup: Interval, documents: int, words: str
) -> None:
    recommendation = [replace(r, speedup=speedup) for r in by_hand.recommendation]
    summary = replace(by_hand, recommendation=recommendation, documents=documents)
    for tile in tiles(summary):
        assert answers(tile)["Is it faster?"].startswith(words)


def test_how_sure_it_is_counts_documents_and_cautions(by_hand: Summary) -> None:
    sure = answers(tiles(replace(by_hand, cautions=[]))[0])["How sure?"]
    assert sure.startswith("95% interval") and sure.endswith("over 20 documents")
    doubted = answers(tiles(replace(by_hand, cautions=["a", "b"]))[0])["How sure?"]
    assert doubted == f"{sure}; 2 cautions among the findings"
    doubted = answers(tiles(replace(by_hand, cautions=["a"]))[0])["How sure?"]
    assert doubted == f"{sure}; 1 caution among the findings"


def test_a_tile_is_of_what_engines_run_and_names_the_faster_method(
    several_methods: Summary,
) -> None:
    at_zero, at_one = tiles(several_methods)
    assert (at_zero.number, at_one.number) == ("1.60×", "1.60×")
    shown = answers(at_one)
    assert shown["Can it be faster?"] == "in this engine: block, gamma 8, 1.70×"
    assert shown["With which settings?"].startswith("gamma 4: num_speculative_tokens=4 (vLLM)")
    assert "(argmax drafts 0.600)" in shown["By how much?"]
    assert "argmax" not in answers(at_zero)["By how much?"]


def test_a_method_that_no_engine_has_is_said_to_be_one(several_methods: Summary) -> None:
    shown = answers(tiles(replace(several_methods, standard_methods=[]))[0])
    assert shown["With which settings?"].endswith("no serving engine has this method")


def test_a_tile_never_shows_nan(several_methods: Summary) -> None:
    cells = [replace(cell, tau=NOTHING) for cell in several_methods.cells]
    shown = tiles(replace(several_methods, cells=cells, baseline=[]))
    assert "not measured tokens per target forward" in answers(shown[0])["By how much?"]
    assert str(math.nan) not in " ".join(text for tile in shown for _, text in tile.answers)


def test_the_title_names_target_and_draft(by_hand: Summary) -> None:
    models = {"target": {"path": "checkpoints/a/target"}, "undistilled": {"path": "org/draft"}}
    assert (
        title(replace(by_hand, environment={"models": models}))
        == ".../a/target with the draft org/draft: hand <made>"
    )
    made = {
        "target": {"path": "checkpoints/converted/smollm2-135m/target"},
        "undistilled": {"path": "layers 0, 29 of the target"},
    }
    assert (
        title(replace(by_hand, environment={"models": made}))
        == "HuggingFaceTB/SmolLM2-135M-Instruct with the draft layers 0, 29 of the target: "
        "hand <made>"
    )
    assert title(replace(by_hand, environment={})) == "Speculative decoding: hand <made>"


@pytest.mark.parametrize("odd", [7, None, [], {"target": 3}])
def test_a_summary_with_an_odd_environment_has_facts(odd: Any, by_hand: Summary) -> None:
    shown = facts(replace(by_hand, environment={"models": odd, "machine": odd}))
    assert "24 prompts × 64 tokens" in shown
