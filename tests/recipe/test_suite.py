from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distillspec.recipe.suite import Suite


def test_the_defaults_are_a_whole_suite() -> None:
    suite = Suite()
    assert suite.drafts == ("undistilled", "distilled", "control")
    assert [method.name for method in suite.methods] == ["standard"]
    assert (suite.methods[0].draft.kind, suite.methods[0].verify.kind) == ("chain", "token")


@pytest.mark.parametrize("key", ["drafts", "gammas", "temperatures"])
def test_a_value_that_stands_twice_is_refused(key: str) -> None:
    twice: dict[str, Any] = {
        "drafts": ["distilled", "distilled"],
        "gammas": [2, 2],
        "temperatures": [1.0, 1.0],
    }
    with pytest.raises(ValidationError, match=f"{key} lists a value twice"):
        Suite.model_validate({key: twice[key]})


@pytest.mark.parametrize(
    "values",
    [
        {"gammas": []},
        {"gammas": [0]},
        {"temperatures": [-0.1]},
        {"methods": [{"draft": {"kind": "unheard-of"}}]},
        {"drafts": ["other"]},
        {"confidence": 1.0},
        {"bootstrap": 3},
        {"unknown": 1},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Suite.model_validate(values)


def test_texts_can_be_more_than_the_decoded_prompts_or_fewer() -> None:
    def plan(**prompts: int) -> tuple[int, int]:
        found = Suite.model_validate({"prompts": prompts}).prompts
        return found.read, found.most

    assert plan(count=8) == (8, 8)
    assert plan(count=8, texts=20) == (20, 20)
    assert plan(count=8, texts=3) == (3, 8)
