from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.recipe.methods import CardConfig, MethodConfig

SEQUENCES = {"kind": "sequences", "count": 2}
DISTINCT = {"kind": "sequences", "distinct": True}


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"verify": {"kind": "kseq"}}, "'kseq' does not verify one chain"),
        ({"draft": SEQUENCES}, "'token' does not verify independent sequences"),
        (
            {"draft": DISTINCT, "verify": {"kind": "kseq"}},
            "'kseq' does not verify sequences that begin differently",
        ),
        (
            {"draft": SEQUENCES, "verify": {"kind": "multipath"}, "stop": {"kind": "adaedl"}},
            "multipath",
        ),
        (
            {"choose": {"kind": "ucb", "arms": ["standard"]}, "stop": {"kind": "svip"}},
            "leave out draft, stop",
        ),
        ({"verify": {"kind": "lenient", "eps": 0.5}}, "is lossy and must say so"),
        (
            {"choose": {"kind": "ucb", "arms": ["standard"], "window": 9, "discount": 0.9}},
            "choose.window",
        ),
        ({"fallback": {"baseline": "standard@2"}}, "adapts nothing"),
        (
            {
                "stop": {"kind": "svip"},
                "fallback": {"baseline": "standard@2", "window": 9, "pause": 3},
            },
            "must be at least window",
        ),
        ({"draft": {"kind": "sequences", "count": 0}, "verify": {"kind": "kseq"}}, "count"),
        (
            {"parallel": {"kind": "card"}, "stop": {"kind": "svip"}},
            "leave out draft, stop",
        ),
        ({"parallel": {"kind": "pearl"}, "draft": SEQUENCES}, "leave out draft"),
        ({"parallel": {"kind": "card", "nodes": 0}}, "nodes"),
        (
            {"choose": {"kind": "ucb", "arms": ["card"], "per": "text", "reward": "tokens"}},
            "set reward: tokens_per_second",
        ),
        (
            {"choose": {"kind": "ucb", "arms": ["card"], "per": "text", "memory": "prompt"}},
            "set memory: kept",
        ),
        (
            {
                "choose": {"kind": "ucb", "arms": ["card"], "per": "text"},
                "fallback": {"baseline": "standard@2"},
            },
            r"choose\.per",
        ),
        ({"parallel": {"kind": "pearl"}, "fallback": {"baseline": "standard@2"}}, "adapts nothing"),
        (
            {"parallel": {"kind": "card"}, "choose": {"kind": "ucb", "arms": ["standard"]}},
            "has parallel",
        ),
        ({"choose": {"kind": "hedge", "arms": ["standard"], "memory": "none"}}, "memory"),
        ({"draft": {"kind": "lookup"}, "stop": {"kind": "adaedl"}}, "lookup"),
        ({"draft": {"kind": "lookup"}, "verify": {"kind": "kseq"}}, "does not verify one chain"),
        ({"draft": {"kind": "lookup", "longest": 0}}, "longest"),
        ({"draft": {"kind": "none"}, "gammas": [2]}, "has gammas"),
        ({"draft": {"kind": "none"}, "stop": {"kind": "svip"}}, "has stop"),
        ({"draft": {"kind": "none"}, "verify": {"kind": "block"}}, "has verify"),
        ({"draft": {"kind": "lookup", "model": "distilled"}}, "model"),
        ({"draft": {"kind": "chain", "model": "other"}}, "'undistilled', 'distilled' or 'control'"),
    ],
)
def test_parts_that_make_no_sense_together_are_refused(method: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        MethodConfig.model_validate({"name": "mine", **method})


def test_an_oracle_is_no_method_and_the_error_says_where_it_is_told() -> None:
    with pytest.raises(ValidationError, match="no text can be decoded with it.*the report shows"):
        MethodConfig.model_validate({"name": "best", "stop": {"kind": "oracle"}})


def test_candidates_beyond_their_budget_are_refused_with_an_estimate() -> None:
    with pytest.raises(ValidationError, match="take about 544 MiB, budget_mib is 64"):
        CardConfig.model_validate({"kind": "card", "nodes": 256, "layers": 64})
    wide = {"kind": "card", "nodes": 256, "layers": 64, "budget_mib": 600}
    assert CardConfig.model_validate(wide).layers == 64


def test_what_a_round_reaches_beyond_the_text() -> None:
    assert MethodConfig().reach(4) == 4
    assert MethodConfig.model_validate({"parallel": {"kind": "pearl"}}).reach(4) == 8
    card = MethodConfig.model_validate({"parallel": {"kind": "card", "layers": 10}})
    assert (card.reach(4), card.reach(12)) == (10, 12)
