"""Which tokens end a text, from the model, its tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.vocabulary.chat_template import ChatTemplate, Message, Tool, common_length
from distillspec.models.vocabulary.detokenize import detokenize

KEY = "pair.eos_token_ids"

_MARKER, _THOUGHT = "distillspec", "because"
_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {"item": {"type": "string"}}},
    },
}
_CALL = {"type": "function", "function": {"name": "look", "arguments": {"item": "x"}}}
# Kinds of answers: a template may refuse some of them.
_ANSWERS: tuple[Message, ...] = (
    {"content": _MARKER},
    {"content": _MARKER, "reasoning_content": _THOUGHT},
    {"content": "", "tool_calls": [_CALL]},
    {"content": "", "reasoning_content": _THOUGHT, "tool_calls": [_CALL]},
    {"content": _MARKER, "tool_calls": [_CALL]},
)


class EosTokens(NamedTuple):
    """The tokens that end a text.

    Attributes:
        ids: Their ids.
        turn_end: The token that the chat template puts after an answer, if it ends a text.
        notes: For the user: where the ids come from, and where the template disagrees.
    """

    ids: frozenset[int]
    turn_end: int | None
    notes: tuple[str, ...]


class _Written(NamedTuple):
    """One answer as a template writes it.

    Attributes:
        inside: Special tokens before the end of the answer.
        behind: Special tokens at its end, with at most spaces between them.
        calls: Whether the answer is a tool call.
    """

    inside: frozenset[int]
    behind: tuple[int, ...]
    calls: bool


def find_eos_tokens(
    model: nn.Module | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    given: Sequence[int] = (),
    variables: Mapping[str, Any] | None = None,
) -> EosTokens:
    """The tokens that end a text of `model`.

    These are the end tokens of its generation_config and its tokenizer; either may name none. A
    special token that the chat template puts after an answer is added too, unless it also occurs
    inside an answer with reasoning or a tool call: in gpt-oss `<|end|>` closes a channel.

    Args:
        model: None if only the tokenizer is known.
        tokenizer: The model's tokenizer.
        given: The ids of the recipe (`pair.eos_token_ids`); then nothing else is used.
        variables: Variables of the chat template.
    """
    # 1. Take the tokens of the recipe. Without any, take those of model and tokenizer.
    named = dict.fromkeys(given, KEY) if given else _named(model, tokenizer)
    ids, notes = set(named), []
    # 2. Add what the chat template puts after an answer. After a tool call the last special
    #    token counts: those before it may close the call.
    written = list(_answers(tokenizer, variables))
    inside = frozenset[int]().union(*(answer.inside for answer in written))
    for answer in written:
        ends = answer.behind[-1:] if answer.calls else answer.behind[:1]
        if given or not ends or ids & set(answer.behind):
            continue
        if ends[0] in inside:
            notes.append(
                f"the chat template ends an answer with {_shown(tokenizer, ends[0])} and also "
                f"writes it inside answers, so it does not end a text; to change this, set {KEY}"
            )
        else:
            ids.add(ends[0])
            named[ends[0]] = "after an answer in the chat template"
    # 3. Notes for the user where the template disagrees.
    plain_answer = next((answer for answer in written if not answer.calls), None)
    notes += _disagreements(tokenizer, ids, inside, plain_answer)
    turn_end = (
        next((token for token in plain_answer.behind if token in ids), None)
        if plain_answer
        else None
    )
    descriptions = (f"{_shown(tokenizer, token)} ({named[token]})" for token in sorted(ids))
    summary = f"a text ends with {', '.join(descriptions)}" if ids else "nothing ends a text"
    return EosTokens(frozenset(ids), turn_end, (summary, *dict.fromkeys(notes)))


def _disagreements(
    tokenizer: PreTrainedTokenizerBase,
    ids: Set[int],
    inside: Set[int],
    plain_answer: _Written | None,
) -> Iterator[str]:
    """Notes on end tokens that the chat template uses otherwise."""
    for token in sorted(ids & inside):
        yield (
            f"{_shown(tokenizer, token)} ends a text, but the chat template writes it inside "
            f"answers, which are cut there; to change this, set {KEY}"
        )
    if plain_answer is not None and not ids & set(plain_answer.behind):
        yield (
            "the chat template puts none of these after an answer, so chats do not teach "
            f"the draft where to stop; to end a text with another token, set {KEY}"
        )


def require_eos_tokens(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    what: str,
    *,
    vocab_size: int,
    given: Sequence[int] = (),
    variables: Mapping[str, Any] | None = None,
) -> EosTokens:
    """Like `find_eos_tokens`, with checks.

    Args:
        model: The model.
        tokenizer: The model's tokenizer.
        what: `target` or `draft`, for the error.
        vocab_size: Tokens of the model.
        given: The ids of the recipe (`pair.eos_token_ids`).
        variables: Variables of the chat template.

    Raises:
        DistillSpecError: No token ends a text, or a given id is not in the vocabulary.
    """
    outside = [token for token in given if not 0 <= token < vocab_size]
    if outside:
        raise DistillSpecError(
            f"token {outside[0]} cannot end a text: the {what} has {vocab_size} tokens",
            where=f"{KEY}={list(given)}",
            fix=f"set ids from 0 to {vocab_size - 1}, or remove the key",
        )
    tokens = find_eos_tokens(model, tokenizer, given=given, variables=variables)
    if not tokens.ids:
        raise DistillSpecError(
            f"the {what} names no end-of-text token",
            where=f"pair.{what}: generation_config.json and tokenizer",
            fix=f"set eos_token_id in the {what}'s generation_config.json, or {KEY} in the recipe",
        )
    return tokens


def _named(model: nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Each end token and its source."""
    settings = None if model is None else bare_model(model).generation_config
    configured = None if settings is None else settings.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    sources = {int(token): "generation_config" for token in several if token is not None}
    if tokenizer.eos_token_id is not None:
        sources.setdefault(int(tokenizer.eos_token_id), "tokenizer")
    return sources


def _answers(
    tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any] | None
) -> Iterator[_Written]:
    """Each kind of answer that the template accepts, as it writes them."""
    template = ChatTemplate(tokenizer, variables)
    if not template.exists:
        return
    special = {number for number, added in tokenizer.added_tokens_decoder.items() if added.special}
    asked = [{"role": "user", "content": "Hi"}]
    for answer in _ANSWERS:
        # 1. Write this answer with the template, and cut off the prompt that asks for it.
        calls = "tool_calls" in answer
        tools = [_TOOL] if calls else None
        try:
            prompt = template.prompt(asked, tools)
            conversation = template.conversation([*asked, {"role": "assistant", **answer}], tools)
        except DistillSpecError:
            continue
        text = conversation[common_length(prompt, conversation) :]
        if ("look" if calls else _MARKER) not in text:
            continue  # the template does not write the answer
        # 2. Find where the answer itself ends: only special tokens and blanks follow.
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        end = len(tokens)
        while end and (
            tokens[end - 1] in special or not detokenize(tokenizer, [tokens[end - 1]]).strip()
        ):
            end -= 1
        yield _Written(
            frozenset(special.intersection(tokens[:end])),
            tuple(token for token in tokens[end:] if token in special),
            calls,
        )


def _shown(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return f"{token} {tokenizer.convert_ids_to_tokens(token)!r}"
