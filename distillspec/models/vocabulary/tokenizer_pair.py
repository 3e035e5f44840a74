"""Whether two tokenizers are the same function: speculative decoding needs equal token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.runtime.notes import say_once

_NAMED = 3
# Spaces, cases, digits, accents in two normal forms, scripts without spaces, controls, code.
_PROBE = (
    "Hello, World!  The quick brown fox\tjumps over 1234567890 lazy dogs.\n\n"
    "    def f(x: int = 3) -> str:\r\n        return f'{x!r:>10}'  # naïve cafe\u0301 ÅÅ\n"
    "日本語のテキスト 한국어 العربية ελληνικά 🙂👩\u200d👧 ½ ﬁ x²\n"
    "\x00\x7f don't I'LL we've ___ ==>= //=\n"
)


class TokenizersDifferError(DistillSpecError):
    """Target and draft split text differently (see `vocabulary.cross_tokenizer`)."""


def check_pair(
    target_tokenizer: PreTrainedTokenizerBase,
    draft_tokenizer: PreTrainedTokenizerBase,
    target_vocabulary: int,
    draft_vocabulary: int,
    where: str,
) -> int:
    """The size of the vocabulary that both models share.

    The models' outputs may differ by padding: logits beyond the shared size must then be trimmed.
    Tokens at the end of the vocabulary that only one tokenizer has, or that a model has no row for,
    count as padding too if no text needs them. These are added tokens that neither start or end a
    text nor occur in the chat template. A note names them, and `check_in_vocabulary` rejects a text
    that contains one.

    Args:
        target_tokenizer: The target's tokenizer.
        draft_tokenizer: The draft's tokenizer.
        target_vocabulary: Size of the target's output.
        draft_vocabulary: Size of the draft's output.
        where: Location of the pair, for errors.

    Raises:
        TokenizersDifferError: The tokenizers differ.
        DistillSpecError: A model's output lacks rows for tokens.
    """
    # 1. Tokens at the end that no text needs count as padding.
    target_ids, draft_ids = target_tokenizer.get_vocab(), draft_tokenizer.get_vocab()
    common = min(target_vocabulary, draft_vocabulary)
    idle = _idle(target_tokenizer) | _idle(draft_tokenizer)
    vocab_size, ruled_out = _without_idle_end(target_ids, draft_ids, idle, common)
    target_kept, draft_kept = (
        {token: id_ for token, id_ in ids_of.items() if token not in ruled_out}
        for ids_of in (target_ids, draft_ids)
    )
    # 2. All other tokens, their roles and the splitting of text must be equal.
    _check_tokens(target_kept, draft_kept, where)
    _check_special(target_tokenizer, draft_tokenizer, ruled_out, where)
    _check_probe(target_tokenizer, draft_tokenizer, ruled_out, where)
    _check_rows(max(target_kept.values()), target_vocabulary, draft_vocabulary, where)
    if ruled_out:
        ids = target_ids | draft_ids
        say_once(
            "ruled out for both models, like padding: tokens that one of them lacks ("
            f"{_named(sorted(ruled_out, key=ids.__getitem__), ids)})"
        )
    return vocab_size


def _check_rows(largest: int, target_vocabulary: int, draft_vocabulary: int, where: str) -> None:
    """Raise DistillSpecError if an output lacks a row for the largest token id."""
    common = min(target_vocabulary, draft_vocabulary)
    if largest >= common:
        smaller = "target" if target_vocabulary < draft_vocabulary else "draft"
        raise DistillSpecError(
            f"the tokenizer has ids up to {largest}, but the {smaller}'s output ends at "
            f"{common - 1} (target {target_vocabulary}, draft {draft_vocabulary} tokens)",
            where=where,
            fix=f"resize the {smaller}'s embeddings to hold every token, or use another pair",
        )


def _without_idle_end(
    target_ids: dict[str, int], draft_ids: dict[str, int], idle: set[str], common: int
) -> tuple[int, list[str]]:
    """The vocabulary before the idle tokens that differ, and the tokens that this rules out."""
    apart = [id_ for name, id_ in target_ids.items() ^ draft_ids.items() if name in idle]
    vocab_size = min(common, *apart) if apart else common
    ids = target_ids | draft_ids
    ruled_out = [name for name in idle if ids[name] >= vocab_size]
    if any(ids[name] >= vocab_size for name in ids.keys() - set(ruled_out)):
        return common, []  # only the last tokens can be padding
    return vocab_size, ruled_out


def check_in_vocabulary(
    texts: Iterable[tuple[str, Sequence[int]]],
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Check that the pair has a row for every token of the texts.

    Args:
        texts: Names of texts, and their token ids.
        vocab_size: The result of `check_pair`.
        tokenizer: The target's, to name the token.

    Raises:
        DistillSpecError: A text contains a token outside the shared vocabulary.
    """
    for name, tokens in texts:
        largest = max(tokens, default=0)
        if largest >= vocab_size:
            raise DistillSpecError(
                f"a text has the token {tokenizer.convert_ids_to_tokens(largest)!r} ({largest}), "
                f"and the models' common vocabulary ends at {vocab_size - 1}",
                where=name,
                fix="remove it from the text, or resize the embeddings of both models to hold "
                "every token of the tokenizer",
            )


def padding_token(
    tokenizer: PreTrainedTokenizerBase, vocab_size: int | None, otherwise: int
) -> int:
    """The token that pads rows; masks hide it, so any token of the models is possible."""
    pad = tokenizer.pad_token_id
    is_known = pad is not None and (vocab_size is None or pad < vocab_size)
    return int(pad if is_known else otherwise)


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) over tokens and ids: the meaning of token ids stored on disk."""
    tokens = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def _check_tokens(target: dict[str, int], draft: dict[str, int], where: str) -> None:
    if target == draft:
        return
    only_target = sorted(target.keys() - draft.keys(), key=target.__getitem__)
    only_draft = sorted(draft.keys() - target.keys(), key=draft.__getitem__)
    moved = [token for token in sorted(target, key=target.__getitem__)
             if token in draft and target[token] != draft[token]]  # fmt: skip
    parts = [f"{len(target)} tokens in the target's, {len(draft)} in the draft's"]
    if only_target:
        parts.append(f"{len(only_target)} only in the target's ({_named(only_target, target)})")
    if only_draft:
        parts.append(f"{len(only_draft)} only in the draft's ({_named(only_draft, draft)})")
    if moved:
        token = moved[0]
        parts.append(
            f"{len(moved)} under another id (first: {token!r} is {target[token]} in the target's, "
            f"{draft[token]} in the draft's)"
        )
    raise _different("; ".join(parts), where)


def _idle(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Added tokens that occur in a text only if somebody writes their names, mainly padding.

    Tokens with a role are not idle: start and end of text, and those in the chat template.
    """
    roles = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token}
    template = str(tokenizer.chat_template or "")
    added = tokenizer.get_added_vocab()
    return {token for token in added if token not in roles and token not in template}


def _check_special(
    target: PreTrainedTokenizerBase,
    draft: PreTrainedTokenizerBase,
    ruled_out: Sequence[str],
    where: str,
) -> None:
    if target.eos_token_id != draft.eos_token_id:
        raise _different(
            f"end of text is {target.eos_token!r} ({target.eos_token_id}) in the target's, "
            f"{draft.eos_token!r} ({draft.eos_token_id}) in the draft's",
            where,
        )
    # Padding tokens may differ: masks come from lengths.
    padding = {target.pad_token, draft.pad_token, *ruled_out}
    differing = set(target.all_special_tokens) ^ set(draft.all_special_tokens)
    specials = sorted(differing - padding)
    if specials:
        raise _different(f"special only in one of them: {', '.join(map(repr, specials))}", where)


def _check_probe(
    target: PreTrainedTokenizerBase,
    draft: PreTrainedTokenizerBase,
    ruled_out: Sequence[str],
    where: str,
) -> None:
    special_tokens = dict.fromkeys([*target.all_special_tokens, *draft.all_special_tokens])
    specials = "x".join(token for token in special_tokens if token not in ruled_out)
    for add_special_tokens in (False, True):
        # Text, then text with the special tokens spelled out, which may be split differently.
        for text in (_PROBE, specials + _PROBE):
            target_tokens = target.encode(text, add_special_tokens=add_special_tokens)
            draft_tokens = draft.encode(text, add_special_tokens=add_special_tokens)
            if target_tokens == draft_tokens:
                continue
            pairs = zip(target_tokens, draft_tokens, strict=False)
            first = next(
                (i for i, (a, b) in enumerate(pairs) if a != b),
                min(len(target_tokens), len(draft_tokens)),
            )
            part = slice(first, first + 3)
            raise _different(
                "the tokens are the same, but a text is split differently: from token "
                f"{first} on, the target's gives {target.decode(target_tokens[part])!r} "
                f"{target_tokens[part]}, the draft's {draft.decode(draft_tokens[part])!r} "
                f"{draft_tokens[part]}",
                where,
            )


def _different(what: str, where: str) -> TokenizersDifferError:
    return TokenizersDifferError(
        f"target and draft have different tokenizers: {what}",
        where=where,
        fix="use a draft of the target's family (same tokenizer), or train one with the target's "
        "tokenizer (`pretrain`, tokenizer.take_from); or set pair.tokenizers: cross-tokenizer, and "
        "let the draft learn and propose the shared tokens",
    )


def _named(tokens: list[str], ids: dict[str, int]) -> str:
    named = ", ".join(f"{token!r} = {ids[token]}" for token in tokens[:_NAMED])
    return named + (", ..." if len(tokens) > _NAMED else "")
