from __future__ import annotations

from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.configuration import Configuration
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.verify.token import verify_token


def test_the_same_configuration_is_chosen_every_round() -> None:
    standard = Configuration("standard", 4, ChainDraft(), FixedLength(), verify_token)
    chooser = Fixed(standard)
    assert all(chooser.choose() is standard for _ in range(3))
