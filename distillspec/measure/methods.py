"""A suite's method, which is data, becomes the objects that decode. One table a part, by kind."""

from __future__ import annotations

from collections.abc import Callable

from distillspec.recipe.suite import ChainDraft as ChainDraftPlan
from distillspec.recipe.suite import FixedStop, Method, TokenVerify
from distillspec.speculation.configuration import Configuration
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.proposal import DraftRule
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.verdict import VerifyRule

DRAFTS: dict[str, Callable[[ChainDraftPlan], DraftRule]] = {"chain": lambda plan: ChainDraft()}
STOPS: dict[str, Callable[[FixedStop], StopRule]] = {"fixed": lambda plan: FixedLength()}
VERIFIERS: dict[str, Callable[[TokenVerify], VerifyRule]] = {"token": lambda plan: verify_token}


def configuration(method: Method, gamma: int) -> Configuration:
    """`method` with blocks of at most gamma tokens."""
    return Configuration(
        name=method.name,
        gamma=gamma,
        draft=DRAFTS[method.draft.kind](method.draft),
        stop=STOPS[method.stop.kind](method.stop),
        verify=VERIFIERS[method.verify.kind](method.verify),
    )
