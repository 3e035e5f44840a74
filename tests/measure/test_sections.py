"""Text and tables of the page: every foreign string escaped, every number formatted."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

from distillspec.measure import sections
from distillspec.measure.summary import Summary
from tests.measure.conftest import a_cell, a_place, a_regret, an_oracle


class Columns(HTMLParser):
    """How many cells each row of a table has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.counts.append(0)
        elif tag in ("td", "th"):
            self.counts[-1] += 1


def test_rows_are_as_wide_as_their_heads(by_hand: Summary) -> None:
    for html in (
        sections.cells(by_hand, by_hand.drafts()),
        sections.comparisons(by_hand),
        sections.baseline(by_hand),
        sections.quality(by_hand),
        sections.divergences(by_hand),
        sections.recommendations(by_hand.recommendation),
    ):
        assert len(set(Columns(html).counts)) == 1


def test_what_others_wrote_is_escaped(by_hand: Summary) -> None:
    text = sections.examples(by_hand.examples) + sections.environment(by_hand.environment)
    assert "<b>" not in text
    assert "<script>" not in text
    assert "&lt;b&gt;" in text
    assert "x &amp; y" in text


def test_tokens_carry_their_fate_and_line_breaks_stay_visible(by_hand: Summary) -> None:
    text = sections.examples(by_hand.examples)
    for fate in ("accepted", "corrected", "bonus"):
        assert f'<span class="piece {fate}" title="{fate}">' in text
    assert '<span class="break">↵</span>\n' in text


def test_drafts_of_an_example_stand_before_and_after(by_hand: Summary) -> None:
    text = sections.examples(list(reversed(by_hand.examples)))
    assert text.index("undistilled:") < text.index(">distilled:")


def test_what_does_not_exist_is_a_dash(by_hand: Summary) -> None:
    odd = replace(by_hand, cells=[a_cell("distilled", 2, 1.0, tau=math.nan, break_even_alpha=None)])
    assert "nan" not in sections.cells(odd, ["distilled"])
    assert "–" in sections.cells(odd, ["distilled"])


def test_a_second_method_gets_its_column(by_hand: Summary) -> None:
    other = replace(by_hand, cells=[*by_hand.cells, a_cell("distilled", 2, 1.0, method="block")])
    assert ">method<" not in sections.cells(by_hand, ["distilled"])
    assert ">block<" in sections.cells(other, ["distilled"])


def test_the_tiles_show_the_distilled_draft_beside_the_undistilled(by_hand: Summary) -> None:
    text = sections.tiles(by_hand)
    assert text.count('class="tile"') == 2
    assert "undistilled 1.20×" in text


def test_of_each_temperature_the_oracle_stands_before_the_methods() -> None:
    places = [a_place(temperature=t, method=name) for t in (0.0, 1.0) for name in ("one", "two")]
    text = sections.ranking(places, [an_oracle(temperature=1.0)])
    assert text.count("oracle, not a method") == 1
    order = [text.index("<td>0<"), text.index("oracle on standard"), text.rindex(">one<")]
    assert order == sorted(order)
    assert text.index(">two<") < order[1]
    assert "120% to 130%" in text
    assert len(set(Columns(text).counts)) == 1


def test_a_chooser_stands_beside_its_best_and_its_mean_arm(by_hand: Summary) -> None:
    odd = a_regret(untimed_arms=["spectr@8"], relative_low=-0.1)
    text = sections.regrets(replace(by_hand, regrets=[a_regret(), odd]))
    assert len(set(Columns(text).counts)) == 1
    assert "ucb&lt;spec&gt;" in text
    for said in ("+10.0%", "+5.0% to +15.0%", "+20.0%", "2, not timed: spectr@8"):
        assert said in text
    assert text.count('class="null"') == 1


def test_categories_are_told_at_the_best_gamma_and_few_prompts_in_counts(
    broken_down: Summary,
) -> None:
    text = sections.categories(broken_down)
    assert len(set(Columns(text).counts)) == 1
    assert text.count("<td>q &amp; a</td>") == 2  # of the one recommended cell a temperature
    assert "60.0%" in text and "50.0% to 70.0%" in text
    assert "60 of 100" in text and "85 in 25" in text
    assert "nan" not in text
