"""A suite's method, which is data, becomes the objects that decode. One table a part, by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distillspec.methods import cost_model
from distillspec.methods.step_times import StepTimes
from distillspec.recipe import methods as plan
from distillspec.recipe.methods import MethodConfig, Parallel
from distillspec.recipe.suite import Suite
from distillspec.speculation.chance import RandomSource
from distillspec.speculation.choose.chooser import Chooser, Reward
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.exp3 import EXP3
from distillspec.speculation.choose.hedge import Hedge
from distillspec.speculation.choose.per_prompt import PerPrompt
from distillspec.speculation.choose.ucb import UCB
from distillspec.speculation.choose.valve import FallbackChooser
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.confidence import Confidence, DraftVerify
from distillspec.speculation.draft.entropy import SVIP, AdaEDL
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.draft.nothing import NoDraft
from distillspec.speculation.draft.proposal import DraftRule
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.lenience import lenient
from distillspec.speculation.verify.multipath import verify_multipath
from distillspec.speculation.verify.recursive import verify_recursive, verify_recursive_distinct
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.traversal import verify_traversal
from distillspec.speculation.verify.verdict import Rule

DRAFTS: dict[str, Callable[[Any], DraftRule]] = {
    "chain": lambda _: ChainDraft(),
    "sequences": lambda one: SequencesDraft(one.count, one.distinct),
    "lookup": lambda one: LookupDraft(one.longest),
    "none": lambda _: NoDraft(),
}
STOPS: dict[str, Callable[[Any], StopRule]] = {
    "fixed": lambda _: FixedLength(),
    "adaedl": lambda one: AdaEDL(one.threshold, one.wanted_rate),
    "svip": lambda one: SVIP(one.weight, one.threshold),
    "confidence": lambda one: Confidence(one.threshold),
    "draft_verify": lambda one: DraftVerify(one.threshold, one.wanted_rate),
}
VERIFIERS: dict[str, Callable[[Any], Rule]] = {
    "token": lambda _: verify_token,
    "block": lambda _: verify_block,
    "lenient": lambda one: lenient(one.verify.form, one.verify.eps),
    "kseq": lambda _: verify_kseq,
    "recursive": lambda one: verify_recursive_distinct if _is_distinct(one) else verify_recursive,
    "traversal": lambda _: verify_traversal,
    "multipath": lambda _: verify_multipath,
}
CHOOSERS: dict[str, Callable[[Any, Sequence[Configuration], Reward, RandomSource], Chooser]] = {
    "ucb": lambda one, arms, reward, _: UCB(
        arms,
        reward,
        delta=one.delta,
        scale=one.scale,
        discount=one.discount,
        window=one.window,
    ),
    "exp3": lambda one, arms, reward, chance: EXP3(
        arms, reward, chance, scale=one.scale, is_centred=one.estimate == "centred"
    ),
    "hedge": lambda one, arms, reward, chance: Hedge(arms, reward, chance, scale=one.scale),
}

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


def graph_sizes(suite: Suite) -> tuple[list[int], list[int], list[int]]:
    """Sizes of the target's blocks, of its trees and of the draft's trees.

    Blocks that may end early get graphs of half the size and so on; so do trees, whose sequences
    share what they share.
    """
    chains: set[int] = set()
    trees: set[int] = set()
    rows: set[int] = set()
    for method, gamma in fixed_arms(suite):
        if isinstance(method.draft, plan.SequencesDraftConfig):
            most = method.draft.count * gamma
            trees |= {most + 1, most // 2 + 1}
            rows.add(method.draft.count)
            continue
        if isinstance(method.draft, plan.NoDraftConfig):
            continue
        chains.add(gamma)
        ends_early = method.stop.kind != "fixed" or isinstance(method.draft, plan.LookupDraftConfig)
        while ends_early and gamma > _PADDING:
            gamma //= 2
            chains.add(gamma)
    return block_sizes(sorted(chains)), sorted(trees), sorted(rows)


def most_drafted(suite: Suite) -> list[tuple[MethodConfig, int, int]]:
    """Every method and gamma, and how many tokens a round of it has beyond the text, at most."""
    rounds = [
        (one, gamma, DRAFTS[one.draft.kind](one.draft).slots(gamma))
        for one, gamma in fixed_arms(suite)
    ]
    protocols = [
        (one, gamma, slots(protocol, gamma)) for one, protocol, gamma in protocols_of(suite)
    ]
    return [*rounds, *protocols]


def protocols_of(suite: Suite) -> list[tuple[MethodConfig, Parallel, int]]:
    """Every method of two processes and gamma that any way of the suite decodes texts with."""
    found = [(method, gamma) for method in suite.methods for gamma in suite.of(method)]
    found += [arm for method in suite.methods if method.choose for arm in suite.arms(method)]
    return [
        (method, method.parallel, gamma)
        for method, gamma in dict.fromkeys(found)
        if method.parallel is not None
    ]


def slots(protocol: Parallel, gamma: int) -> int:
    """Places in a cache that a parallel protocol takes beyond the text, at most."""
    if isinstance(protocol, plan.CardConfig):
        return protocol.nodes * protocol.layers
    return 2 * gamma


def draft_block_sizes(suite: Suite) -> list[int]:
    """Numbers of tokens that a draft's runner prepares graphs for: 1, and what it may have missed.

    A draft in use has one or two tokens to read. One that rests has what others committed since: a
    round's tokens at least; after a longer rest they are read like a prompt.
    """
    rests = [
        method
        for method in suite.methods
        if method.choose is not None
        and len({(arm.needs_model, arm.model) for arm, _ in suite.arms(method)}) > 1
    ]
    return sorted({1, 2, *(gamma + 1 for method in rests for gamma in suite.of(method))})


def drafts_by_entropy(suite: Suite) -> bool:
    """Whether a chain of some method ends where the draft is unsure, by its entropy."""
    return any(
        isinstance(method.draft, plan.ChainDraftConfig)
        and STOPS[method.stop.kind](method.stop).reads_entropy
        for method, _ in fixed_arms(suite)
    )


def most_slots(suite: Suite) -> int:
    """Places in a cache that any way of the suite takes beyond the text."""
    return max(drafted for _, _, drafted in most_drafted(suite))


def fixed_arms(suite: Suite) -> list[tuple[MethodConfig, int]]:
    """Every method and gamma that rounds in one process are decoded with, each once."""
    found = [one for method in suite.methods for one in configurations(suite, method)]
    return list(dict.fromkeys(found))


def configurations(suite: Suite, method: MethodConfig) -> list[tuple[MethodConfig, int]]:
    """Every method and gamma that may decode a round of `method`, whatever its gamma."""
    if method.choose is None:
        found = [(method, gamma) for gamma in suite.of(method)]
    else:
        found = suite.arms(method)
    found = [(one, gamma) for one, gamma in found if one.parallel is None]
    return found if method.fallback is None else [*found, suite.baseline(method)]


def models(suite: Suite, method: MethodConfig, draft: str) -> list[str]:
    """The draft models that a method's rounds need, in a column of `draft`."""
    names = (model_of(one, draft) for one, _ in configurations(suite, method))
    return list(dict.fromkeys(name for name in names if name is not None))


def model_of(method: MethodConfig, draft: str | None) -> str | None:
    """The draft model of a method in a column of `draft`; None: it drafts without one."""
    return (method.model or draft) if method.needs_model else None


def configuration(method: MethodConfig, gamma: int, draft: str | None = None) -> Configuration:
    """`method` with blocks of at most gamma tokens, drafted by `draft` unless it names another.

    Of a method of two processes, an arm that is chosen per text, just name and gamma mean anything.
    """
    return Configuration(
        name=method.name,
        gamma=gamma,
        draft=DRAFTS[method.draft.kind](method.draft),
        stop=STOPS[method.stop.kind](method.stop),
        verify=VERIFIERS[method.verify.kind](method),
        model=model_of(method, draft),
    )


def chooser(
    suite: Suite,
    method: MethodConfig,
    chance: RandomSource,
    most_tokens_per_second: float,
    draft: str | None = None,
) -> Chooser:
    """What a method that chooses becomes, with arms that know nothing yet."""
    choose = method.choose
    assert choose is not None
    counts_seconds = choose.reward == "tokens_per_second"
    reward = Reward(
        max(gamma for _, gamma in suite.arms(method)),
        most_tokens_per_second if counts_seconds else None,
    )

    def make() -> Chooser:
        arms = [configuration(one, gamma, draft) for one, gamma in suite.arms(method)]
        return CHOOSERS[choose.kind](choose, arms, reward, chance)

    return PerPrompt(make) if choose.memory == "prompt" else make()


def most_tokens_per_second(
    suite: Suite, method: MethodConfig, draft: str, steps: Mapping[str, StepTimes]
) -> float:
    """What the arms' drafts would reach if never rejected: as chains, and by lookup if one does.

    Also those of arms in two processes; of arms that draft nothing, the column's. steps: by method,
    at one temperature.
    """
    arms = [arm for arm, _ in suite.arms(method)]
    drafts = set(models(suite, method, draft))
    if any(arm.parallel for arm in arms) or not any(arm.drafts for arm in arms):
        drafts.add(draft)
    lookups = {arm.name for arm in arms if arm.draft.kind == "lookup"}
    caps = {
        (name, one): cost_model.perfect_draft_cap(
            times.draft_to_target_time(one), times.verify_times()
        ).speedup
        / times.target_seconds
        for name, times in steps.items()
        for one in times.draft_seconds
        if suite.named(name).drafts and (name in lookups or one in drafts)
    }
    found = {name for name, _ in caps}
    plain = {one.name for one in suite.methods if one.is_standard} & found or found
    return max(cap for (name, _), cap in caps.items() if name in plain | lookups)


def guarded(suite: Suite, method: MethodConfig, way: Chooser, draft: str | None = None) -> Chooser:
    """`way` behind the method's valve, if it has one."""
    if method.fallback is None:
        return way
    plan = method.fallback
    return FallbackChooser(
        way,
        configuration(*suite.baseline(method), draft),
        window=plan.window,
        margin=plan.margin,
        pause=plan.pause,
    )


def _is_distinct(method: MethodConfig) -> bool:
    return isinstance(method.draft, plan.SequencesDraftConfig) and method.draft.distinct
