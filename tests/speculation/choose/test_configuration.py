from __future__ import annotations

import dataclasses

import pytest

from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.verify.token import verify_token


def test_a_configuration_is_compared_by_its_parts_and_does_not_change() -> None:
    draft, stop = ChainDraft(), FixedLength()
    standard = Configuration("standard", 4, draft, stop, verify_token)
    assert standard == Configuration("standard", 4, draft, stop, verify_token)
    assert dataclasses.replace(standard, gamma=2).gamma == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        standard.gamma = 2  # type: ignore[misc]
