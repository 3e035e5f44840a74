"""The figures of choosers and stop rules show what was counted, and nothing where nothing was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillspec.measure.summary.records import Summary
from distillspec.report.figures.choosers import (
    arm_shares,
    entropy_histograms,
    kept_and_rejected,
    regret_curves,
    shares_by_period,
    shown_draft,
)
from distillspec.report.figures.theme import DARK, LIGHT
from tests.measure.timed.test_audit import a_round
from tests.measured import a_regret


def test_regret_is_drawn_by_quantity_and_temperature_with_the_mean_arm(by_hand: Summary) -> None:
    found = [
        a_regret(method=method, quantity=quantity, temperature=temperature)
        for method in ("ucb", "exp3")
        for quantity in ("rounds", "seconds")
        for temperature in (0.0, 1.0)
    ]
    figure = regret_curves(replace(by_hand, regrets=found), LIGHT)
    assert figure is not None
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["T = 0", "T = 1"] * 2
    assert [panel.get_ylabel().split()[0] for panel in figure.axes[::2]] == ["rounds", "seconds"]
    chosen, mean, *_ = figure.axes[0].lines
    assert list(chosen.get_ydata()) == [4.0, 5.0, 6.0]
    assert list(mean.get_ydata()) == [4.0, 8.0, 12.0]
    assert chosen.get_color() == mean.get_color() != figure.axes[0].lines[2].get_color()


def test_of_several_drafts_the_distilled_one_is_shown(by_hand: Summary) -> None:
    both = [a_regret(draft="undistilled", regret=[9.0] * 3), a_regret()]
    figure = regret_curves(replace(by_hand, regrets=both), DARK)
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_ydata()) == [4.0, 5.0, 6.0]
    assert shown_draft(["undistilled", "mine"]) == "mine"


def test_shares_are_of_equal_parts_of_the_rounds_in_their_order() -> None:
    arms = ["a@1"] * 8 + ["a@1"] * 2 + ["b@1"] * 6 + ["b@1"] * 8
    assert shares_by_period(arms, ["a@1", "b@1"]) == (
        [8, 16, 24],
        [[1.0, 0.25, 0.0], [0.0, 0.75, 1.0]],
    )
    ends, (one,) = shares_by_period(["a@1"] * 1000, ["a@1"])
    assert len(ends) == 30
    assert ends[-1] == 1000
    assert set(one) == {1.0}


def test_arms_are_drawn_for_what_had_a_choice_alone() -> None:
    fixed = [a_round(method="standard", arm="standard@4") for _ in range(20)]
    assert arm_shares(fixed, LIGHT) is None
    assert arm_shares([], LIGHT) is None
    chosen = [a_round(arm=f"standard@{2 + 8 * (i > 9)}") for i in range(20)]
    figure = arm_shares([*fixed, *chosen], LIGHT)
    assert figure is not None
    (panel,) = figure.axes
    assert panel.get_title(loc="left") == "ucbspec, T = 0.5"
    assert panel.get_legend_handles_labels()[1] == ["standard@2", "standard@10"]


ROUNDS = [
    a_round(drafted=3, accepted=1, entropies=[0.1, 0.9, 5.0]),
    a_round(drafted=2, accepted=2, entropies=[0.2, 0.3]),
    a_round(drafted=2, accepted=1, entropies=[0.4, 0.8]),
    a_round(drafted=6, accepted=1, entropies=[7.0, 7.0]),  # of several sequences
    a_round(drafted=0, accepted=0, entropies=[]),
]


def test_what_stands_behind_a_rejected_token_was_not_judged() -> None:
    assert kept_and_rejected(ROUNDS) == ([0.1, 0.2, 0.3, 0.4], [0.9, 0.8])


@pytest.mark.filterwarnings("error")
def test_entropies_are_drawn_as_shares_of_either_kind() -> None:
    figure = entropy_histograms(ROUNDS, LIGHT)
    assert figure is not None
    assert figure.axes[0].get_legend_handles_labels()[1] == ["accepted", "first rejected"]
    assert entropy_histograms(ROUNDS[3:], LIGHT) is None
    all_kept = [a_round(drafted=2, accepted=2, entropies=[0.0, 0.0])]
    assert entropy_histograms(all_kept, LIGHT) is not None
    assert entropy_histograms([], LIGHT) is None
