"""Tables of an evaluation: their columns, their rows, and what does not exist."""

from __future__ import annotations

import math
from dataclasses import replace

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.records import Summary
from distillspec.report import columns
from distillspec.report.grid import PAGE, TERMINAL, Grid
from tests.measured import a_cell, a_place, a_regret, an_oracle


def titles(grid: Grid) -> list[str]:
    return [head.title for head in grid.heads]


def column(grid: Grid, title: str) -> list[str]:
    return [line.cells[titles(grid).index(title)] for line in grid.lines]


def test_rows_are_as_wide_as_their_heads(broken_down: Summary) -> None:
    summary = replace(broken_down, ranking=[a_place()], oracles=[an_oracle()], regrets=[a_regret()])
    for grid in (
        columns.page_cells(summary),
        columns.terminal_cells(summary, 1.0),
        columns.card_cells(summary, summary.cells),
        columns.baseline(summary),
        columns.recommendations(summary),
        columns.regrets(summary),
        columns.quality(summary),
        columns.divergences(summary),
        *(
            table(summary, view)
            for table in (columns.comparisons, columns.categories, columns.ranking)
            for view in (PAGE, TERMINAL)
        ),
    ):
        assert grid.lines
        assert {len(line.cells) for line in grid.lines} == {len(grid.heads)}


def test_what_does_not_exist_is_a_dash(by_hand: Summary) -> None:
    odd = replace(by_hand, cells=[a_cell("distilled", 2, 1.0, tau=math.nan, break_even_alpha=None)])
    grid = columns.page_cells(odd)
    assert column(grid, "tau") == column(grid, "break-even") == ["–"]


def test_a_second_method_gets_its_column(by_hand: Summary) -> None:
    other = replace(by_hand, cells=[*by_hand.cells, a_cell("distilled", 2, 1.0, method="block")])
    assert "method" not in titles(columns.page_cells(by_hand))
    assert "block" in column(columns.page_cells(other), "method")


def test_slow_cells_and_the_best_gamma_of_each_draft_are_marked(by_hand: Summary) -> None:
    cells = [a_cell("distilled", g, 1.0, speedup=s) for g, s in ((2, 0.5), (4, 0.75), (6, 0.7))]
    lines = columns.page_cells(replace(by_hand, cells=cells)).lines
    assert [line.emphasis for line in lines] == ["slow", "best slow", "slow"]


def test_argmax_drafts_are_left_out_where_they_are_the_sampled_ones(by_hand: Summary) -> None:
    assert "alpha, argmax" not in titles(columns.terminal_cells(by_hand, 0.0))
    assert "alpha, argmax" in titles(columns.terminal_cells(by_hand, 1.0))
    card = columns.card_cells(by_hand, [a_cell("control", 2, 0.0)])
    assert column(card, "alpha, argmax") == ["as alpha"]


def test_categories_are_shown_at_the_best_gamma_and_few_prompts_in_counts(
    broken_down: Summary,
) -> None:
    grid = columns.categories(broken_down, PAGE)
    assert column(grid, "category") == ["q & a", "rare"] * 2
    assert column(grid, "accepted") == ["60.0%", "60 of 100"] * 2
    assert column(grid, "95%") == ["50.0% to 70.0%", ""] * 2
    assert column(grid, "tau") == ["2.20", "85 in 25"] * 2


def test_at_each_temperature_the_oracle_comes_before_the_methods(by_hand: Summary) -> None:
    places = [a_place(temperature=t, method=name) for t in (0.0, 1.0) for name in ("one", "two")]
    summary = replace(by_hand, ranking=places, oracles=[an_oracle(temperature=1.0)])
    grid = columns.ranking(summary, PAGE)
    assert column(grid, "method") == ["one", "two", "oracle on standard", "one", "two"]
    assert column(grid, "95%")[2] == "120% to 130%"
    assert "target busy" not in titles(grid)
    parallel = replace(summary, ranking=[a_place(target_busy=0.5, draft_busy=0.25)])
    assert column(columns.ranking(parallel, PAGE), "target busy") == ["", "50%"]


def test_a_bound_of_a_hundred_times_the_fastest_is_none(by_hand: Summary) -> None:
    ranked = a_place(relative=Interval(-0.1, -0.9, 250.0))
    grid = columns.ranking(replace(by_hand, ranking=[ranked]), PAGE)
    assert (column(grid, "of the fastest"), column(grid, "95%")) == (["90%"], ["–"])


def test_a_chooser_is_shown_with_its_best_and_its_mean_arm(by_hand: Summary) -> None:
    unsure = a_regret(untimed_arms=["spectr@8"], relative=Interval(0.1, -0.1, 0.15))
    grid = columns.regrets(replace(by_hand, regrets=[a_regret(), unsure]))
    assert column(grid, "of arms") == ["2", "2, not timed: spectr@8"]
    assert column(grid, "beyond the best") == ["+10.0%"] * 2
    assert column(grid, "95%") == ["+5.0% to +15.0%", "-10.0% to +15.0%"]
    assert column(grid, "mean arm beyond it") == ["+20.0%"] * 2
    assert [line.emphasis for line in grid.lines] == ["", "null"]
