from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillspec.recipe.section import Count, Section, Share


class Part(Section):
    share: Share = 0.5
    count: Count = 1


def test_values_stay_in_their_ranges_and_do_not_change() -> None:
    assert Part(share=1.0, count=3).count == 3
    for values in ({"share": 1.1}, {"share": -0.1}, {"count": 0}, {"cuont": 1}):
        with pytest.raises(ValidationError):
            Part.model_validate(values)
    with pytest.raises(ValidationError, match="frozen"):
        Part().count = 2  # type: ignore[misc]
