from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillspec.recipe.text_source import SourceShares


@pytest.mark.parametrize("shares", [{"fixed": 0.5}, {"fixed": 0.6, "draft": 0.6}, {}])
def test_shares_must_add_up_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="add up to 1"):
        SourceShares.model_validate(shares)


def test_shares_may_be_any_mixture() -> None:
    assert SourceShares(fixed=0.1, target=0.2, draft=0.7).target == 0.2


def test_shares_know_what_is_stored_and_what_is_still_to_be_written() -> None:
    shares = SourceShares(fixed=0.25, target=0.25, draft=0.5)
    assert shares.of == {"fixed": 0.25, "target": 0.25, "draft": 0.5}
    assert shares.stored == {"fixed": 0.25, "target": 0.25}
    assert SourceShares(draft=0.5, target=0.5, per="token").stored == {}
    assert SourceShares(draft=1.0).is_drafts and not shares.is_drafts
