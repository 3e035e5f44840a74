from __future__ import annotations

from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.speculation.choose.statistics import arms_of, read_arms
from distillspec.speculation.draft.entropy import AdaEDL
from tests.speculation.choose.simulated import arms
from tests.speculation.decoding.test_engine import standard

GOOD: dict[str, Any] = {"kind": "ucb", "arms": arms_of(arms(2), [[1.0, 2.0], [3.0, 4.0]])}


def test_what_the_arms_stop_rules_have_learnt_goes_with_them() -> None:
    taught, fresh = (standard(8, stop=AdaEDL(0.4, 0.9)) for _ in range(2))
    for _ in range(5):
        taught.stop.learn(4, 1, 8)
    read_arms({"kind": "fixed", "arms": arms_of([taught], [[]])}, "fixed", [fresh], 0, "here")
    assert fresh.stop.state() == taught.stop.state() != AdaEDL(0.4, 0.9).state()


def test_what_was_written_is_read_again() -> None:
    assert read_arms(GOOD, "ucb", arms(2), 2, "here") == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("nonsense", "no statistics"),
        ({"kind": "ucb"}, "no statistics"),
        (
            {
                "kind": "ucb",
                "arms": [{"name": "standard", "gamma": 1, "values": ["x"], "stop": []}],
            },
            "no stat",
        ),
        ({**GOOD, "kind": "exp3"}, "'exp3', not 'ucb'"),
        ({"kind": "ucb", "arms": arms_of(arms(3), [[0.0, 0.0]] * 3)}, "of other arms"),
        ({"kind": "ucb", "arms": arms_of(arms(2), [[1.0], [2.0]])}, "missing"),
        ({"kind": "ucb", "arms": arms_of(arms(2), [[1.0, float("nan")]] * 2)}, "not finite"),
    ],
)
def test_foreign_or_broken_statistics_are_refused(state: Any, message: str) -> None:
    with pytest.raises(DistillSpecError, match=message):
        read_arms(state, "ucb", arms(2), 2, "here")
