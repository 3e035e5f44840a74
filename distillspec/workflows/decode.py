"""Speculative decoding as a stream of tokens with their fates: for use as a library."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from distillspec.corpus.sources.passage import text_key
from distillspec.errors import DistillSpecError
from distillspec.measure.timed.audit import AuditedRound, Decoded, append
from distillspec.measure.timed.parallel import parallel_rounds
from distillspec.methods.build import (
    chooser,
    configuration,
    configurations,
    guarded,
    most_slots,
    most_tokens_per_second,
)
from distillspec.methods.step_times import has_room, measure_steps
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.precision import fast_dtype
from distillspec.models.runners.cross_tokenizer import CrossTokenizerRunner
from distillspec.models.runners.eager import check_text_fits, vocabulary_size
from distillspec.models.runners.encoder_decoder import check_same_kind, start_token
from distillspec.models.runners.tree_batch import eager_runner, runner_for_trees
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from distillspec.models.vocabulary.detokenize import decoded
from distillspec.models.vocabulary.eos_tokens import stop_ids
from distillspec.models.vocabulary.tokenizer_pair import (
    TokenizersDifferError,
    check_in_vocabulary,
    check_pair,
)
from distillspec.recipe.loading import load_suite, method_of, suite_of
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.choose.chooser import Chooser
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Round, RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

STANDARD = "standard"
_DRAFT = "draft"
_WHERE = "target and draft of decode"
_TIMED_ROUNDS = 5  # of each arm: what a perfect draft could reach is only a scale
_CONTEXT = (
    8  # tokens that a tokenizer needs to see before one to decode it as it stands in the text
)
_LONGEST_CHARACTER = 4  # tokens, of a byte each


class DecodedToken(NamedTuple):
    """A token of the output: its id, its text, its fate, its round, and whether it is that's first.

    text: what it adds; empty where a character is still incomplete.
    """

    token: int
    text: str
    fate: TokenStatus
    round: RoundRecord
    begins_round: bool


def decode(
    target: PreTrainedModel | str | Path,
    draft: PreTrainedModel | str | Path,
    prompt: str,
    *,
    method: str | Mapping[str, Any] | MethodConfig = STANDARD,
    suite: str | Path | Suite | None = None,
    gamma: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    nucleus: float | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    audit: str | Path | None = None,
) -> Iterator[DecodedToken]:
    """Continue `prompt` up to end-of-text or max_new_tokens, with the distribution of the target.

    target, draft: both causal or both encoder-decoder models in eval mode, folders or Hub ids; the
    latter answer the prompt, in place of going on with it. method: "standard", or a method as a
    suite has it (`{"draft": {"kind": "sequences"}, "verify": {"kind": "kseq"}}`), or one of `suite`
    by its name. One that chooses finds its arms in `suite`, and without that has `standard` to
    choose from, at any gamma (`{"choose": {"kind": "ucb", "arms": ["standard@2", "standard@8"]}}`):
    it begins anew with each text, and arms of unequal cost are first timed for a moment. gamma: of
    methods that do not choose. tokenizer: the target's, if that is a model without a folder. audit:
    a file to which a line a round is added when the text ends (`measure.audit`). Tokens come once
    their round is verified. Only a method with `verify: {kind: lenient}` leaves the target's
    distribution. A draft with another tokenizer proposes the tokens that both have, in one process.
    DistillSpecError if the two do not fit together or the prompt is empty.
    """
    for name, value, most in (("gamma", gamma, 64), ("max_new_tokens", max_new_tokens, None)):
        if not isinstance(value, int) or value < 1 or (most is not None and value > most):
            raise DistillSpecError(
                f"{name} is {value!r}",
                where="decode",
                fix=f"give a whole number {'from 1 on' if most is None else f'of 1 to {most}'}",
            )
    plan, plans = _planned(method, suite, gamma)
    if plan.parallel is not None and audit is not None:
        raise DistillSpecError(
            f"{plan.parallel.kind!r} keeps no audit: its draft works in another process",
            where="decode: audit",
            fix="leave out audit, or choose a method of one process",
        )
    audited = None if audit is None else Path(audit)
    if audited is not None:
        append(audited, [])  # a place that cannot be written to is found out now
    big, small = _model(target, "target"), _model(draft, "draft")
    ways = configurations(plans, plan)
    has_trees = any(one.draft.kind == "sequences" for one, _ in ways)
    make = runner_for_trees if has_trees else eager_runner
    has_source = check_same_kind(big, small, _WHERE)
    text = tokenizer or load_tokenizer(_folder(target), what="target")
    drafts_text = tokenizer or load_tokenizer(_folder(draft), what="draft")
    sizes = vocabulary_size(big), vocabulary_size(small)
    bridge = None
    try:
        vocab_size = check_pair(text, drafts_text, *sizes, _WHERE)
    except TokenizersDifferError:
        if plan.parallel is not None or has_source:
            raise
        vocab_size, bridge = sizes[0], CrossTokenizerMap(text, drafts_text, *sizes, _WHERE)
        log.warning(
            "the tokenizers differ: the draft reads the text in its own tokens and proposes those "
            "%d of the target's %d that both have",
            len(bridge.target_ids),
            vocab_size,
        )
    ids: list[int] = text.encode(prompt)
    if not ids:
        raise DistillSpecError(
            "the prompt has no tokens", where="decode", fix="give at least one character"
        )
    check_in_vocabulary([("decode: prompt", ids)], vocab_size, text)
    if has_source:
        start = start_token(big)
        ids = [*(token for token in ids if token != start), start]
    for one in (big,) if bridge else (big, small):  # one with its own tokens rests where it must
        check_text_fits(one, len(ids) + max_new_tokens)
    prompt_ids = torch.tensor(ids, dtype=torch.long, device=big.device)
    runner, ends = make(big, vocab_size=vocab_size), stop_ids(big, text).ids
    policy = SamplingPolicy(temperature, top_k, nucleus)
    chance = GeneratorSource(
        torch.Generator(big.device).manual_seed(derive_seed(seed, "tokens of decode"))
    )
    if plan.parallel is not None:
        rounds = parallel_rounds(
            plan.parallel,
            runner,
            small,
            prompt_ids,
            gamma=gamma,
            policy=policy,
            chance=chance,
            seed=seed,
            max_new_tokens=max_new_tokens,
            eos_token_ids=ends,
        )
    else:
        needs_model = plan.choose is not None or any(one.needs_model for one, _ in ways)
        drafts: dict[str, Runner] = {}
        if needs_model and bridge is None:
            drafts[_DRAFT] = make(small, vocab_size=vocab_size)
        elif needs_model and bridge is not None:
            drafts[_DRAFT] = CrossTokenizerRunner(make(small), bridge)
        rounds = SpeculativeDecoder(
            runner,
            drafts,
            _way(plans, plan, gamma, runner, drafts, prompt_ids, policy, seed),
            policy,
            chance,
            audited=audited is not None,
        ).rounds(prompt_ids, max_new_tokens=max_new_tokens, eos_token_ids=ends)
    if audited is not None:
        key = text_key("decode", prompt)
        what = Decoded(0, key, temperature, _folder(draft), plan.name, gamma)
        rounds = _audited(rounds, audited, what)
    return _with_text(rounds, text, ids[-_CONTEXT:])


def _audited(rounds: Iterator[Round], log: Path, what: Decoded) -> Iterator[Round]:
    """The same rounds, written down when they end or nobody wants more of them."""
    seen: list[AuditedRound] = []
    try:
        for number, one in enumerate(rounds):
            seen.append(what.line(number, one.record, one.fates[-1]))
            yield one
    finally:
        append(log, seen)


def _with_text(
    rounds: Iterator[Round], tokenizer: PreTrainedTokenizerBase, context: list[int]
) -> Iterator[DecodedToken]:
    """Each token with what it adds to the text; bytes of half a character wait for the rest."""
    held: list[int] = []
    for one in rounds:
        for place, (token, fate) in enumerate(zip(one.tokens, one.fates, strict=True)):
            held.append(token)
            before = decoded(tokenizer, context)
            added = decoded(tokenizer, [*context, *held])[len(before) :]
            is_half = added.endswith("\ufffd") and len(held) < _LONGEST_CHARACTER
            yield DecodedToken(token, "" if is_half else added, fate, one.record, place == 0)
            if not is_half:
                context, held = [*context, *held][-_CONTEXT:], []


def _planned(
    method: str | Mapping[str, Any] | MethodConfig, suite: str | Path | Suite | None, gamma: int
) -> tuple[MethodConfig, Suite]:
    """The method, and a suite that has it and its arms."""
    if suite is not None:
        plans = suite if isinstance(suite, Suite) else load_suite(suite)
    else:
        plans = Suite(gammas=(gamma,))
    if isinstance(method, str):
        plan = next((one for one in plans.methods if one.name == method), None)
        if plan is None and method == STANDARD:
            plan = MethodConfig()
        if plan is None:
            where = plans.name if suite is None or isinstance(suite, Suite) else str(suite)
            raise DistillSpecError(
                f"no method '{method}'",
                where=where or "decode: method",
                fix="choose one of "
                + ", ".join(dict.fromkeys([STANDARD, *(one.name for one in plans.methods)])),
            )
    else:
        plan = method if isinstance(method, MethodConfig) else method_of(method)
    if plan.choose is not None or plan.fallback is not None:
        others = [one for one in plans.methods if one.name != plan.name]
        if plan.name == STANDARD:
            plan = plan.model_copy(update={"name": "chooser"})
        if all(one.name != STANDARD for one in others):
            others.append(MethodConfig())
        values = plans.model_dump(mode="json") | {
            "methods": [one.model_dump(mode="json") for one in (*others, plan)]
        }
        plans = suite_of(values)
        _check_arms(plans, plan)
    else:
        plans = Suite(methods=(plan,), gammas=(gamma,))
        plan = plan.model_copy(update={"gammas": (gamma,)})
    if plan.model is not None:
        raise _names_a_draft(plan)
    return plan, plans


def _check_arms(plans: Suite, plan: MethodConfig) -> None:
    if plan.choose is not None and plan.choose.per == "text":
        raise DistillSpecError(
            "the method chooses once a text, and this is one text",
            where="decode: method: choose: per",
            fix="choose per round, or name one of its arms",
        )
    for arm, _ in configurations(plans, plan):
        if arm.model is not None:
            raise _names_a_draft(arm)


def _names_a_draft(plan: MethodConfig) -> DistillSpecError:
    return DistillSpecError(
        f"the method {plan.name!r} names the draft '{plan.model}', but a draft is given beside it",
        where="decode: method: draft",
        fix="leave out model, and give the draft that is meant; evaluate decodes with several",
    )


def _way(
    plans: Suite,
    plan: MethodConfig,
    gamma: int,
    target: Runner,
    drafts: Mapping[str, Runner],
    prompt: Tensor,
    policy: SamplingPolicy,
    seed: int,
) -> Chooser:
    """What decodes the rounds: one configuration, or several to choose from."""
    choose = plan.choose
    if choose is None:
        return guarded(plans, plan, Fixed(configuration(plan, gamma, _DRAFT)), _DRAFT)
    most = 1.0
    is_readable = has_room(prompt.tolist(), drafts.values(), most_slots(plans))
    if choose.reward == "tokens_per_second" and is_readable:
        chance = GeneratorSource(
            torch.Generator(prompt.device).manual_seed(derive_seed(seed, "timing of decode"))
        )
        timed = {
            one.name: one for one, _ in plans.arms(plan) if one.drafts and one.has_known_rounds
        }
        timed.setdefault(STANDARD, plans.named(STANDARD))
        steps = {
            name: measure_steps(
                target,
                drafts,
                [configuration(one, size, _DRAFT) for size in plans.of(one)],
                prompt,
                policy=policy,
                chance=chance,
                rounds=_TIMED_ROUNDS,
            )
            for name, one in timed.items()
        }
        most = most_tokens_per_second(plans, plan, _DRAFT, steps)
    # Drawn on the host. What picks an arm must not know the uniforms that its tokens come from.
    arms = GeneratorSource(torch.Generator().manual_seed(derive_seed(seed, "arms of decode")))
    return guarded(plans, plan, chooser(plans, plan, arms, most, _DRAFT), _DRAFT)


def _model(one: PreTrainedModel | str | Path, what: str) -> PreTrainedModel:
    if not isinstance(one, str | Path):
        return one
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(str(one), dtype=fast_dtype(device), what=what)
    torch.nn.Module.to(model, device)
    return model


def _folder(one: PreTrainedModel | str | Path) -> str:
    return str(one if isinstance(one, str | Path) else one.name_or_path)
