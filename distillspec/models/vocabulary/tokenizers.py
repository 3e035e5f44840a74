"""Are two tokenizers one and the same function? Speculative decoding needs equal token ids."""

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
    """Target and draft cut text into tokens in two ways (`models/bridge.py` can stand between)."""


def check_pair(
    target_tokenizer: PreTrainedTokenizerBase,
    draft_tokenizer: PreTrainedTokenizerBase,
    target_vocabulary: int,
    draft_vocabulary: int,
    where: str,
) -> int:
    """The vocabulary both models share, tokens; DistillSpecError says what differs.

    TokenizersDifferError where it is the tokenizers.

    The sizes are those of the models' outputs. They may differ by padding: the smaller one is
    returned, and logits beyond it are to be trimmed. Tokens at the end that one tokenizer alone
    has, or that a model has no row for, count as padding too, if no text needs them: tokens added
    to the vocabulary that neither end or begin a text nor stand in the chat template. A note names
    them, and `check_in_vocabulary` finds a text that has one.
    """
    one, two = target_tokenizer.get_vocab(), draft_tokenizer.get_vocab()
    common = min(target_vocabulary, draft_vocabulary)
    idle = _idle(target_tokenizer) | _idle(draft_tokenizer)
    apart = [id_ for token, id_ in one.items() ^ two.items() if token in idle]
    vocab_size = min(common, *apart) if apart else common
    ids = one | two
    ruled_out = [token for token in idle if ids[token] >= vocab_size]
    if any(ids[token] >= vocab_size for token in ids.keys() - set(ruled_out)):
        vocab_size, ruled_out = common, []  # padding is what comes last: nothing is ruled out
    mine, others = ({t: i for t, i in all_.items() if t not in ruled_out} for all_ in (one, two))
    _check_tokens(mine, others, where)
    _check_special(target_tokenizer, draft_tokenizer, ruled_out, where)
    _check_probe(target_tokenizer, draft_tokenizer, ruled_out, where)
    largest = max(mine.values())
    if largest >= common:
        smaller = "target" if target_vocabulary < draft_vocabulary else "draft"
        raise DistillSpecError(
            f"the tokenizer has ids up to {largest}, but the {smaller}'s output ends at "
            f"{common - 1} (target {target_vocabulary}, draft {draft_vocabulary} tokens)",
            where=where,
            fix=f"resize the {smaller}'s embeddings to hold every token, or take another pair",
        )
    if ruled_out:
        say_once(
            "ruled out for both models, as padding is: tokens that one of them lacks ("
            f"{_named(sorted(ruled_out, key=ids.__getitem__), ids)})"
        )
    return vocab_size


def check_in_vocabulary(
    texts: Iterable[tuple[str, Sequence[int]]],
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """DistillSpecError for a text with a token that the pair has no row for.

    Args:
        texts: Names of texts, and their token ids.
        vocab_size: As `check_pair` gives it.
        tokenizer: The target's, to name the token.
    """
    for name, tokens in texts:
        largest = max(tokens, default=0)
        if largest >= vocab_size:
            raise DistillSpecError(
                f"a text has the token {tokenizer.convert_ids_to_tokens(largest)!r} ({largest}), "
                f"and the models' common vocabulary ends at {vocab_size - 1}",
                where=name,
                fix="take it out of the text, or resize the embeddings of both models to hold "
                "every token of the tokenizer",
            )


def padding_token(
    tokenizer: PreTrainedTokenizerBase, vocab_size: int | None, otherwise: int
) -> int:
    """What rows are padded with: any token serves that the models have, as masks hide it."""
    pad = tokenizer.pad_token_id
    is_known = pad is not None and (vocab_size is None or pad < vocab_size)
    return int(pad if is_known else otherwise)


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 (hex) over tokens and their ids: what ids that were kept on disk stand for."""
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
    """Added tokens that a text has only if somebody writes their names into it, padding above all.

    Not those with a role in texts: its begin and end, and what the chat template writes.
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
    # What pads is no matter of text: masks come from lengths.
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
    named = dict.fromkeys([*target.all_special_tokens, *draft.all_special_tokens])
    specials = "x".join(token for token in named if token not in ruled_out)
    for add_special_tokens in (False, True):
        for text in (_PROBE, specials + _PROBE):
            one = target.encode(text, add_special_tokens=add_special_tokens)
            two = draft.encode(text, add_special_tokens=add_special_tokens)
            if one == two:
                continue
            pairs = zip(one, two, strict=False)
            first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))
            raise _different(
                "the tokens are the same, but a text is cut differently: from token "
                f"{first} on, the target's gives {target.decode(one[first : first + 3])!r} "
                f"{one[first : first + 3]}, the draft's {draft.decode(two[first : first + 3])!r} "
                f"{two[first : first + 3]}",
                where,
            )


def _different(what: str, where: str) -> TokenizersDifferError:
    return TokenizersDifferError(
        f"target and draft have different tokenizers: {what}",
        where=where,
        fix="take a draft of the target's family (same tokenizer), or make one with the target's "
        "tokenizer (`pretrain`, tokenizer.take_from); or set pair.tokenizers: cross-tokenizer, and "
        "let the draft learn and propose the tokens that both have",
    )


def _named(tokens: list[str], ids: dict[str, int]) -> str:
    named = ", ".join(f"{token!r} = {ids[token]}" for token in tokens[:_NAMED])
    return named + (", ..." if len(tokens) > _NAMED else "")
