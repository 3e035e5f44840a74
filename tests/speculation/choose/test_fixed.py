from __future__ import annotations

from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.entropy import AdaEDL
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.verify.token import verify_token


def test_the_same_configuration_is_chosen_every_round() -> None:
    standard = Configuration("standard", 4, ChainDraft(), FixedLength(), verify_token)
    chooser = Fixed(standard)
    assert all(chooser.choose() is standard for _ in range(3))


def test_what_its_stop_rule_has_learnt_is_kept_and_given_back() -> None:
    taught, fresh = (
        Fixed(Configuration("adaedl", 8, ChainDraft(), AdaEDL(0.4, 0.9), verify_token))
        for _ in range(2)
    )
    for _ in range(5):
        taught.choose().stop.learn(4, 1, 8)
    assert taught.state() != fresh.state()
    fresh.restore(taught.state(), where="here")
    assert fresh.state() == taught.state()
    assert fresh.choose().stop.state() == taught.choose().stop.state()
