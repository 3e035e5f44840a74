from __future__ import annotations

from distillspec.speculation.verify.result import ChainRule, VerifyResult
from distillspec.speculation.verify.token import verify_token


def test_a_verdict_is_the_kept_tokens_and_then_one_of_the_targets() -> None:
    result = VerifyResult([4, 5, 6])
    assert (result.accepted, result.next_token) == (2, 6)
    assert (VerifyResult([9]).accepted, VerifyResult([9]).next_token) == (0, 9)


def test_token_verification_is_a_verify_rule() -> None:
    rule: ChainRule = verify_token
    assert callable(rule)
