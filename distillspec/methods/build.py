"""A suite's method, which is data, becomes the objects that decode. One table per part, by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distillspec.methods.step_times import StepTimes
from distillspec.recipe import methods as plan
from distillspec.recipe.methods import MethodConfig, Parallel
from distillspec.recipe.suite import Suite
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.draft.calibrated import CalibratedAdaEDL
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.confidence import Confidence, DraftVerify
from distillspec.speculation.draft.entropy import SVIP, AdaEDL
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.draft.nothing import NoDraft
from distillspec.speculation.draft.proposal import DraftRule
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.round_times import RoundTimes
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.lenience import lenient
from distillspec.speculation.verify.multipath import verify_multipath
from distillspec.speculation.verify.recursive import verify_recursive, verify_recursive_distinct
from distillspec.speculation.verify.result import VerificationRule
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.traversal import verify_traversal

DRAFTS: dict[str, Callable[[Any], DraftRule]] = {
    "chain": lambda _: ChainDraft(),
    "sequences": lambda draft: SequencesDraft(draft.count, draft.distinct),
    "lookup": lambda draft: LookupDraft(draft.longest),
    "none": lambda _: NoDraft(),
}
_THRESHOLD, _WANTED_RATE = 0.4, 0.5  # of the published AdaEDL

STOPS: dict[str, Callable[[Any], StopRule]] = {
    "fixed": lambda _: FixedLength(),
    "adaedl": lambda stop: AdaEDL(
        _THRESHOLD if stop.threshold is None else stop.threshold,
        _WANTED_RATE if stop.wanted_rate is None else stop.wanted_rate,
    ),
    "svip": lambda stop: SVIP(stop.weight, stop.threshold),
    "confidence": lambda stop: Confidence(stop.threshold),
    "draft_verify": lambda stop: DraftVerify(stop.threshold, stop.wanted_rate),
}
VERIFIERS: dict[str, Callable[[Any], VerificationRule]] = {
    "token": lambda _: verify_token,
    "block": lambda _: verify_block,
    "lenient": lambda method: lenient(method.verify.form, method.verify.eps),
    "kseq": lambda _: verify_kseq,
    "recursive": lambda method: (
        verify_recursive_distinct if _is_distinct(method) else verify_recursive
    ),
    "traversal": lambda _: verify_traversal,
    "multipath": lambda _: verify_multipath,
}
_PADDING = 2
_UNTIMED = (0.1, 1.2)  # c and v, for as long as nothing is timed


def block_sizes(gammas: Sequence[int]) -> list[int]:
    """Numbers of tokens that the target's runner prepares graphs for: 1, and blocks of gamma + 1.

    Each graph takes long to compile, so they are few. A block goes through the next larger graph
    with at most two tokens of padding. On hardware bound by memory these cost next to nothing, and
    what they cost is in v and in the wall-clock alike.
    """
    sizes: list[int] = []
    # From the largest down: sizes[-1] is the next larger graph.
    for size in sorted((gamma + 1 for gamma in gammas), reverse=True):
        if not sizes or sizes[-1] - size > _PADDING:
            sizes.append(size)
    return sorted({1, *sizes})


def graph_sizes(suite: Suite) -> tuple[list[int], list[int], list[int]]:
    """Sizes of the target's blocks, of its trees and of the draft's trees.

    Blocks that may end early also get graphs of half the size, of a quarter and so on. Trees get
    one graph of half the size, since sequences share their common tokens.
    """
    chains: set[int] = set()
    trees: set[int] = set()
    rows: set[int] = set()
    for method, gamma in fixed_arms(suite):
        if isinstance(method.draft, plan.SequencesDraftConfig):
            drafted = method.draft.count * gamma
            # One more token than drafted: the root of the tree is the last committed token.
            trees |= {drafted + 1, drafted // 2 + 1}
            rows.add(method.draft.count)
            continue
        # Without a draft the block is one token, a size that is always prepared.
        if isinstance(method.draft, plan.NoDraftConfig):
            continue
        chains.add(gamma)
        ends_early = method.stop.kind != "fixed" or isinstance(method.draft, plan.LookupDraftConfig)
        while ends_early and gamma > _PADDING:
            gamma //= 2
            chains.add(gamma)
    return block_sizes(sorted(chains)), sorted(trees), sorted(rows)


def max_drafted(suite: Suite) -> list[tuple[MethodConfig, int, int]]:
    """Every method and gamma, with the most tokens that one of its rounds has beyond the text."""
    rounds = [
        (method, gamma, DRAFTS[method.draft.kind](method.draft).slots(gamma))
        for method, gamma in fixed_arms(suite)
    ]
    protocols = [
        (method, gamma, slots(protocol, gamma)) for method, protocol, gamma in protocols_of(suite)
    ]
    return [*rounds, *protocols]


def protocols_of(suite: Suite) -> list[tuple[MethodConfig, Parallel, int]]:
    """Every method of two processes, with its gamma, that decodes texts in this suite."""
    arms = [(method, gamma) for method in suite.methods for gamma in suite.of(method)]
    arms += [arm for method in suite.methods if method.choose for arm in suite.arms(method)]
    return [
        (method, method.parallel, gamma)
        for method, gamma in dict.fromkeys(arms)
        if method.parallel is not None
    ]


def slots(protocol: Parallel, gamma: int) -> int:
    """Slots of a cache that a parallel protocol takes beyond the text, at most."""
    if isinstance(protocol, plan.CardConfig):
        return protocol.nodes * protocol.layers
    # PEARL: the block under verification and the one drafted meanwhile.
    return 2 * gamma


def draft_block_sizes(suite: Suite) -> list[int]:
    """Numbers of tokens that a draft's runner prepares graphs for.

    A draft in use has one or two tokens to read. After a round of another draft it has that round's
    tokens to read. After many such rounds it reads the tokens like a prompt, without a graph.
    """
    pausing = [  # methods whose rounds may leave a draft out
        method
        for method in suite.methods
        if method.choose is not None
        and len({(arm.needs_model, arm.model) for arm, _ in suite.arms(method)}) > 1
    ]
    return sorted({1, 2, *(gamma + 1 for method in pausing for gamma in suite.of(method))})


def drafts_by_entropy(suite: Suite) -> bool:
    """Whether the chain drafts of some method stop by the draft's entropy."""
    return any(
        isinstance(method.draft, plan.ChainDraftConfig)
        and STOPS[method.stop.kind](method.stop).reads_entropy
        for method, _ in fixed_arms(suite)
    )


def max_slots(suite: Suite) -> int:
    """Slots of a cache that any method of the suite takes beyond the text, at most."""
    return max(drafted for _, _, drafted in max_drafted(suite))


def fixed_arms(suite: Suite) -> list[tuple[MethodConfig, int]]:
    """Every method and gamma that decodes rounds in one process, each once."""
    arms = [arm for method in suite.methods for arm in configurations(suite, method)]
    return list(dict.fromkeys(arms))


def configurations(suite: Suite, method: MethodConfig) -> list[tuple[MethodConfig, int]]:
    """Every method and gamma that may decode a round of `method`."""
    if method.choose is None:
        arms = [(method, gamma) for gamma in suite.of(method)]
    else:
        arms = suite.arms(method)
    # A method of two processes decodes whole texts, never a round of another method.
    arms = [(arm, gamma) for arm, gamma in arms if arm.parallel is None]
    return arms if method.fallback is None else [*arms, suite.baseline(method)]


def models(suite: Suite, method: MethodConfig, draft: str) -> list[str]:
    """The draft models that a method's rounds need, in a column of `draft`."""
    names = (model_of(arm, draft) for arm, _ in configurations(suite, method))
    return list(dict.fromkeys(name for name in names if name is not None))


def model_of(method: MethodConfig, draft: str | None) -> str | None:
    """The draft model of a method in a column of `draft`; None if it drafts without a model."""
    return (method.model or draft) if method.needs_model else None


def configuration(
    method: MethodConfig, gamma: int, draft: str | None = None, steps: StepTimes | None = None
) -> Configuration:
    """`method` with blocks of at most gamma tokens.

    It drafts with the method's own model if it names one, else with `draft`. For a method of two
    processes, which is an arm that is chosen per text, only name and gamma have a meaning.

    Args:
        method: A method that does not choose.
        gamma: Tokens.
        draft: The draft of the column.
        steps: The method's step times; None before they are known. A rule that follows costs then
            assumes usual ones, which is enough for timing it and for preparing models.
    """
    return Configuration(
        name=method.name,
        gamma=gamma,
        draft=DRAFTS[method.draft.kind](method.draft),
        stop=_stop(method, gamma, model_of(method, draft), steps),
        verify=VERIFIERS[method.verify.kind](method),
        model=model_of(method, draft),
    )


def _stop(method: MethodConfig, gamma: int, model: str | None, steps: StepTimes | None) -> StopRule:
    if not method.follows_costs:
        return STOPS[method.stop.kind](method.stop)
    c, v = _UNTIMED
    untimed = RoundTimes.of_chains(c, {gamma: v})
    return CalibratedAdaEDL(steps.round_times(model) if steps and model else untimed, gamma)


def _is_distinct(method: MethodConfig) -> bool:
    return isinstance(method.draft, plan.SequencesDraftConfig) and method.draft.distinct
