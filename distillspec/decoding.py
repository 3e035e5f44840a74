"""Speculative decoding as a stream of tokens with their fates: for use as a library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from distillspec.corpus.passage import text_key
from distillspec.errors import DistillSpecError
from distillspec.measure.audit import AuditedRound, Decoded, append
from distillspec.measure.completions import end_tokens
from distillspec.measure.methods import configuration
from distillspec.measure.parallel import parallel_rounds
from distillspec.models.loading import load_model, load_tokenizer
from distillspec.models.path_rows import runner_for_trees
from distillspec.models.precision import fast_dtype
from distillspec.models.runner import CausalRunner, vocabulary_size
from distillspec.models.vocabulary import check_pair
from distillspec.recipe.loading import method_of
from distillspec.recipe.methods import Method
from distillspec.speculation.chance import GeneratorChance
from distillspec.speculation.engine import SpeculativeDecoder
from distillspec.speculation.records import Fate, Round, RoundRecord
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STANDARD = "standard"
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
    fate: Fate
    round: RoundRecord
    begins_round: bool


def decode(
    target: PreTrainedModel | str | Path,
    draft: PreTrainedModel | str | Path,
    prompt: str,
    *,
    method: str | Mapping[str, Any] | Method = STANDARD,
    gamma: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    nucleus: float | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    audit: str | Path | None = None,
) -> Iterator[DecodedToken]:
    """Continue `prompt` up to end-of-text or max_new_tokens, with the law of the target.

    target, draft: causal models in eval mode, folders or Hub ids. method: "standard", or a method
    as a suite has it (`{"draft": {"kind": "sequences"}, "verify": {"kind": "kseq"}}`). tokenizer:
    the target's, if that is a model without a folder. audit: a file to which a line a round is
    added when the text ends (`measure.audit`). Tokens come once their round is verified. Only a
    method with `verify: {kind: lenient}` leaves the target's law. DistillSpecError if the two do
    not fit together or the prompt is empty.
    """
    plan = _method(method)
    if not 1 <= gamma <= 64 or max_new_tokens < 1:
        raise DistillSpecError(
            f"gamma is {gamma}, max_new_tokens {max_new_tokens}",
            where="decode",
            mend="give a gamma of 1 to 64, and at least 1 new token",
        )
    if plan.parallel is not None and audit is not None:
        raise DistillSpecError(
            f"{plan.parallel.kind!r} keeps no audit: its draft works in another process",
            where="decode: audit",
            mend="leave out audit, or choose a method of one process",
        )
    big, small = _model(target, "target"), _model(draft, "draft")
    log = None if audit is None else Path(audit)
    if log is not None:
        append(log, [])  # a place that cannot be written to is found out now
    make = runner_for_trees if plan.draft.kind == "sequences" else CausalRunner
    text = tokenizer or load_tokenizer(_folder(target), what="target")
    vocabulary = check_pair(
        text,
        tokenizer or load_tokenizer(_folder(draft), what="draft"),
        vocabulary_size(big),
        vocabulary_size(small),
        where="target and draft of decode",
    )
    ids: list[int] = text.encode(prompt)
    if not ids:
        raise DistillSpecError(
            "the prompt has no tokens", where="decode", mend="give at least one character"
        )
    prompt_ids = torch.tensor(ids, dtype=torch.long, device=big.device)
    runner, ends = make(big, vocabulary=vocabulary), end_tokens(big, text)
    policy = SamplingPolicy(temperature, top_k, nucleus)
    chance = GeneratorChance(torch.Generator(big.device).manual_seed(seed))
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
            end_tokens=ends,
        )
    else:
        rounds = SpeculativeDecoder(
            runner,
            {} if not plan.needs_model else make(small, vocabulary=vocabulary),
            configuration(plan, gamma),
            policy,
            chance,
            audited=log is not None,
        ).rounds(prompt_ids, max_new_tokens=max_new_tokens, end_tokens=ends)
    if log is not None:
        key = text_key("decode", prompt)
        what = Decoded(0, key, temperature, _folder(draft), plan.name, gamma)
        rounds = _audited(rounds, log, what)
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
            before = str(tokenizer.decode(context))
            added = str(tokenizer.decode([*context, *held]))[len(before) :]
            is_half = added.endswith("\ufffd") and len(held) < _LONGEST_CHARACTER
            yield DecodedToken(token, "" if is_half else added, fate, one.record, place == 0)
            if not is_half:
                context, held = [*context, *held][-_CONTEXT:], []


def _method(method: str | Mapping[str, Any] | Method) -> Method:
    if isinstance(method, Method):
        plan = method
    else:
        plan = Method() if method == STANDARD else method_of(method)
    if plan.choose is not None:
        raise DistillSpecError(
            "a method that chooses needs the other methods of its suite",
            where="decode: method",
            mend="name one of its arms",
        )
    if plan.model is not None:
        raise DistillSpecError(
            f"the method names the draft '{plan.model}', but the draft is given beside it",
            where="decode: method: draft",
            mend="leave out model, and give the draft that is meant",
        )
    return plan


def _model(one: PreTrainedModel | str | Path, what: str) -> PreTrainedModel:
    if not isinstance(one, str | Path):
        return one
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(str(one), dtype=fast_dtype(device), what=what)
    torch.nn.Module.to(model, device)
    return model


def _folder(one: PreTrainedModel | str | Path) -> str:
    return str(one if isinstance(one, str | Path) else one.name_or_path)
