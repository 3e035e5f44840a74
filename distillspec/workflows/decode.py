"""Speculative decoding as a stream of tokens, for use as a library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from distillspec.corpus.sources.passage import text_key
from distillspec.errors import DistillSpecError
from distillspec.measure.timed.audit import AuditedRound, Decoded, append
from distillspec.measure.timed.parallel import parallel_rounds
from distillspec.methods.build import configurations
from distillspec.models.runners.cross_tokenizer import CrossTokenizerRunner
from distillspec.models.runners.tree_batch import eager_runner, runner_for_trees
from distillspec.models.vocabulary.detokenize import detokenize
from distillspec.models.vocabulary.eos_tokens import find_eos_tokens
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Round, RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.workflows.decode_method import DRAFT, STANDARD, chooser_for, planned_method
from distillspec.workflows.decode_pair import DecodePair, folder_of, load_decode_pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MOST_GAMMA = 64
# A tokenizer decodes a token as it stands in the text if it sees this many tokens before it.
_CONTEXT = 8
_LONGEST_CHARACTER = 4  # tokens, of a byte each


class DecodedToken(NamedTuple):
    """A token of the output.

    Attributes:
        token: Its id.
        text: What it adds to the text; empty while a character is incomplete.
        status: Whether it was accepted, corrected, a bonus, or plain: in a round without a draft.
        round: The round that committed it.
        begins_round: Whether it is the first token of that round.
    """

    token: int
    text: str
    status: TokenStatus
    round: RoundRecord
    begins_round: bool


class _Settings(NamedTuple):
    gamma: int
    policy: SamplingPolicy
    max_new_tokens: int
    seed: int


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
    """Continue `prompt` with the distribution of the target.

    The stream ends after an end-of-text token or `max_new_tokens`. Tokens come once their round is
    verified. Only a method with `verify: {kind: lenient}` leaves the target's distribution.

    A draft with another tokenizer proposes the tokens that both tokenizers have; this needs a
    method of one process.

    Args:
        target: A causal or encoder-decoder model in eval mode, or its folder or Hub id. An
            encoder-decoder model answers the prompt in place of continuing it.
        draft: A model of the same kind.
        prompt: At least one token.
        method: "standard", the name of a method in `suite`, or a method as a suite has it, such as
            `{"draft": {"kind": "sequences"}, "verify": {"kind": "kseq"}}`.
            A method that chooses takes its arms from `suite`. Without a suite its arms are
            `standard` at any gamma: `{"choose": {"kind": "ucb", "arms": ["standard@2",
            "standard@8"]}}`. It learns from each text separately. Arms of unequal cost are timed
            first.
        suite: A suite, its path, or the name of a built-in suite.
        gamma: Drafted tokens per block, in [1, 64], of a method that does not choose.
        temperature: Of target and draft; 0 is greedy.
        top_k: Sample from this many of the most probable tokens.
        nucleus: Sample from the most probable tokens up to this mass (top-p).
        max_new_tokens: At least 1.
        seed: Of all random numbers.
        tokenizer: Of both models; needed if a given model has no folder.
        audit: A file that receives one line per round when the stream ends; see
            `distillspec.measure.timed.audit`.

    Raises:
        DistillSpecError: The models do not fit together, the method cannot be used, or the prompt
            is empty or too long.
    """
    # 1. Refuse what cannot work before any model is loaded.
    _check_count("gamma", gamma, _MOST_GAMMA)
    _check_count("max_new_tokens", max_new_tokens, None)
    plan, plans = planned_method(method, suite, gamma)
    audit_file = _audit_file(audit, plan)
    # 2. Load the models and encode the prompt.
    pair = load_decode_pair(target, draft, tokenizer, allows_two_tokenizers=plan.parallel is None)
    ids = pair.encode(prompt, max_new_tokens)
    prompt_ids = torch.tensor(ids, dtype=torch.long, device=pair.target.device)
    # 3. Rounds come one by one, as the caller reads them.
    rounds = _rounds(
        pair,
        prompt_ids,
        plan,
        plans,
        _Settings(gamma, SamplingPolicy(temperature, top_k, nucleus), max_new_tokens, seed),
        is_audited=audit_file is not None,
    )
    if audit_file is not None:
        key = text_key("decode", prompt)
        what = Decoded(0, key, temperature, folder_of(draft), plan.name, gamma)
        rounds = _audited(rounds, audit_file, what)
    return _with_text(rounds, pair.tokenizer, ids[-_CONTEXT:])


def _check_count(name: str, value: object, maximum: int | None) -> None:
    if not isinstance(value, int) or value < 1 or (maximum is not None and value > maximum):
        raise DistillSpecError(
            f"{name} is {value!r}",
            where="decode",
            fix=f"give a whole number {'from 1 on' if maximum is None else f'of 1 to {maximum}'}",
        )


def _audit_file(audit: str | Path | None, plan: MethodConfig) -> Path | None:
    """The file to audit into, after a first write that fails early."""
    if audit is None:
        return None
    if plan.parallel is not None:
        raise DistillSpecError(
            f"{plan.parallel.kind!r} keeps no audit: its draft works in another process",
            where="decode: audit",
            fix="leave out audit, or choose a method of one process",
        )
    append(Path(audit), [])
    return Path(audit)


def _rounds(
    pair: DecodePair,
    prompt_ids: torch.Tensor,
    plan: MethodConfig,
    plans: Suite,
    settings: _Settings,
    *,
    is_audited: bool,
) -> Iterator[Round]:
    """Decode by the method, in one process or in two."""
    gamma, policy, max_new_tokens, seed = settings
    used = [method for method, _ in configurations(plans, plan)]
    has_trees = any(method.draft.kind == "sequences" for method in used)
    make_runner = runner_for_trees if has_trees else eager_runner
    target = make_runner(pair.target, vocab_size=pair.vocab_size)
    eos_token_ids = find_eos_tokens(pair.target, pair.tokenizer).ids
    random_source = GeneratorSource(
        torch.Generator(pair.target.device).manual_seed(derive_seed(seed, "tokens of decode"))
    )
    if plan.parallel is not None:
        return parallel_rounds(
            plan.parallel,
            target,
            pair.draft,
            prompt_ids,
            gamma=gamma,
            policy=policy,
            random_source=random_source,
            seed=seed,
            max_new_tokens=max_new_tokens,
            eos_token_ids=eos_token_ids,
        )
    drafts: dict[str, Runner] = {}
    if plan.choose is not None or any(method.needs_model for method in used):
        # With two tokenizers, the draft keeps its own vocabulary.
        drafts[DRAFT] = (
            make_runner(pair.draft, vocab_size=pair.vocab_size)
            if pair.token_map is None
            else CrossTokenizerRunner(make_runner(pair.draft), pair.token_map)
        )
    choose = chooser_for(plans, plan, gamma, target, drafts, prompt_ids, policy, seed)
    decoder = SpeculativeDecoder(target, drafts, choose, policy, random_source, audited=is_audited)
    return decoder.rounds(prompt_ids, max_new_tokens=max_new_tokens, eos_token_ids=eos_token_ids)


def _audited(rounds: Iterator[Round], log: Path, what: Decoded) -> Iterator[Round]:
    """The same rounds; their audit lines are written when they end or the reader stops."""
    seen: list[AuditedRound] = []
    try:
        for number, decoded_round in enumerate(rounds):
            seen.append(what.line(number, decoded_round.record, decoded_round.statuses[-1]))
            yield decoded_round
    finally:
        append(log, seen)


def _with_text(
    rounds: Iterator[Round], tokenizer: PreTrainedTokenizerBase, context: list[int]
) -> Iterator[DecodedToken]:
    """Each token with the text that it adds; the bytes of a character wait for the last of them."""
    pending: list[int] = []
    for current in rounds:
        for index, (token, status) in enumerate(zip(current.tokens, current.statuses, strict=True)):
            pending.append(token)
            before = detokenize(tokenizer, context)
            added = detokenize(tokenizer, [*context, *pending])[len(before) :]
            # A U+FFFD at the end is an incomplete character. After four tokens it is real text.
            is_half = added.endswith("\ufffd") and len(pending) < _LONGEST_CHARACTER
            yield DecodedToken(token, "" if is_half else added, status, current.record, index == 0)
            if not is_half:
                context, pending = [*context, *pending][-_CONTEXT:], []
