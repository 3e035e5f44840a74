"""Tables of methods and choosers, beside what hindsight would have reached."""

from __future__ import annotations

from dataclasses import replace

from distillspec.measure.summary.records import Summary
from distillspec.report import method_sections
from tests.measure.columns import Columns
from tests.measured import a_place, a_regret, an_oracle


def test_of_each_temperature_the_oracle_stands_before_the_methods() -> None:
    places = [a_place(temperature=t, method=name) for t in (0.0, 1.0) for name in ("one", "two")]
    text = method_sections.ranking(places, [an_oracle(temperature=1.0)])
    assert text.count("oracle, not a method") == 1
    order = [text.index("<td>0<"), text.index("oracle on standard"), text.rindex(">one<")]
    assert order == sorted(order)
    assert text.index(">two<") < order[1]
    assert "120% to 130%" in text
    assert len(set(Columns(text).counts)) == 1


def test_a_chooser_stands_beside_its_best_and_its_mean_arm(by_hand: Summary) -> None:
    odd = a_regret(untimed_arms=["spectr@8"], relative_low=-0.1)
    text = method_sections.regrets(replace(by_hand, regrets=[a_regret(), odd]))
    assert len(set(Columns(text).counts)) == 1
    assert "ucb&lt;spec&gt;" in text
    for said in ("+10.0%", "+5.0% to +15.0%", "+20.0%", "2, not timed: spectr@8"):
        assert said in text
    assert text.count('class="null"') == 1
