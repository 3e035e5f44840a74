"""A suite's method, which is data, becomes the objects that decode. One table a part, by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


_PADDING = 2


def block_sizes(gammas: Sequence[int]) -> list[int]:
    """Numbers of tokens that the target's runner prepares graphs for: 1, and blocks of gamma + 1.

    Graphs are few, since each takes long to compile: a block goes through the next larger one, at
    most two tokens of padding, which on hardware bound by memory cost next to nothing. What they do
    cost is in v and in the wall-clock alike.
    """
    sizes: list[int] = []
    for size in sorted((gamma + 1 for gamma in gammas), reverse=True):
        if not sizes or sizes[-1] - size > _PADDING:
            sizes.append(size)
    return sorted({1, *sizes})


def configuration(method: Method, gamma: int) -> Configuration:
    """`method` with blocks of at most gamma tokens."""
    return Configuration(
        name=method.name,
        gamma=gamma,
        draft=DRAFTS[method.draft.kind](method.draft),
        stop=STOPS[method.stop.kind](method.stop),
        verify=VERIFIERS[method.verify.kind](method.verify),
    )
