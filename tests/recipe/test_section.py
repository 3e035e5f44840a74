from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillspec.recipe.section import Count, Decay, FolderName, Section, Share


class Part(Section):
    share: Share = 0.5
    count: Count = 1
    decay: Decay = 0.9
    name: FolderName = ""


def test_values_stay_in_their_ranges_and_do_not_change() -> None:
    assert Part(share=1.0, count=3, decay=0.0, name="a.b").count == 3
    for values in (
        {"share": 1.1},
        {"share": -0.1},
        {"count": 0},
        {"decay": 1.0},
        {"name": "a/b"},
        {"name": ".hidden"},
    ):
        with pytest.raises(ValidationError):
            Part.model_validate(values)
    with pytest.raises(ValidationError, match="frozen"):
        Part().count = 2  # type: ignore[misc]


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Part.model_validate({"cuont": 2})
