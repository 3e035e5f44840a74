"""Which tokens end a text: asked once, of the model, its tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.vocabulary.chat_template import ChatTemplate, Message, Tool, common_length
from distillspec.models.vocabulary.detokenize import decoded

KEY = "pair.eos_token_ids"

_SAID, _THOUGHT = "distillspec", "because"
_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {"item": {"type": "string"}}},
    },
}
_CALL = {"type": "function", "function": {"name": "look", "arguments": {"item": "x"}}}
# What an assistant may say: a template may refuse some of it.
_ANSWERS: tuple[Message, ...] = (
    {"content": _SAID},
    {"content": _SAID, "reasoning_content": _THOUGHT},
    {"content": "", "tool_calls": [_CALL]},
    {"content": "", "reasoning_content": _THOUGHT, "tool_calls": [_CALL]},
    {"content": _SAID, "tool_calls": [_CALL]},
)


class EosTokens(NamedTuple):
    """ids: what ends a text. turn_end: what the chat template puts behind an answer, if that ends a
    text. notes: where the ids come from, and where the template does not agree; for the user.
    """

    ids: frozenset[int]
    turn_end: int | None
    notes: tuple[str, ...]


class _Written(NamedTuple):
    """One answer as a template writes it. inside: special tokens before its end. behind: those at
    its end, nothing but space between them. calls: it is the call of a tool.
    """

    inside: frozenset[int]
    behind: tuple[int, ...]
    calls: bool


def stop_ids(
    model: nn.Module | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    given: Sequence[int] = (),
    variables: Mapping[str, Any] | None = None,
) -> EosTokens:
    """The tokens that end a text of `model`.

    They are those of its generation_config and its tokenizer's end-of-text; each may be silent. A
    special token that the chat template puts behind an answer is added where no answer, with
    reasoning or the call of a tool, has it earlier: in gpt-oss `<|end|>` closes a channel.

    Args:
        model: None where only the tokenizer is known.
        given: What the recipe names (`pair.eos_token_ids`); then nothing else is asked.
        variables: What the chat template reads besides the messages.
    """
    named = dict.fromkeys(given, KEY) if given else _named(model, tokenizer)
    ids, notes = set(named), []
    written = list(_answers(tokenizer, variables))
    inside = frozenset[int]().union(*(one.inside for one in written))
    for one in written:
        ends = one.behind[-1:] if one.calls else one.behind[:1]
        if given or not ends or ids & set(one.behind):
            continue
        if ends[0] in inside:
            notes.append(
                f"the chat template ends an answer with {_shown(tokenizer, ends[0])}, and writes "
                f"it inside of answers too: it does not end a text; if it is to, set {KEY}"
            )
        else:
            ids.add(ends[0])
            named[ends[0]] = "behind an answer in the chat template"
    for token in sorted(ids & inside):
        notes.append(
            f"{_shown(tokenizer, token)} ends a text, and the chat template writes it inside of "
            f"answers: they are cut there; if it is not to end one, set {KEY}"
        )
    plain = next((one for one in written if not one.calls), None)
    if plain is not None and not ids & set(plain.behind):
        notes.append(
            "the chat template puts none of these behind an answer, so rows of chats do not show "
            f"the draft where to stop; if another token is to end a text, set {KEY}"
        )
    turn_end = next((token for token in plain.behind if token in ids), None) if plain else None
    heads = (f"{_shown(tokenizer, token)} ({named[token]})" for token in sorted(ids))
    first = f"a text ends with {', '.join(heads)}" if ids else "nothing ends a text"
    return EosTokens(frozenset(ids), turn_end, (first, *dict.fromkeys(notes)))


def required_stop_ids(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    what: str,
    *,
    vocab_size: int,
    given: Sequence[int] = (),
    variables: Mapping[str, Any] | None = None,
) -> EosTokens:
    """As `stop_ids`; no token at all, or one that the model does not have, is an error.

    Args:
        what: `target` or `draft`, for the error.
        vocab_size: Tokens that the model knows.
    """
    outside = [token for token in given if not 0 <= token < vocab_size]
    if outside:
        raise DistillSpecError(
            f"token {outside[0]} cannot end a text: the {what} knows {vocab_size}",
            where=f"{KEY}={list(given)}",
            fix=f"give ids from 0 to {vocab_size - 1}, or leave the key out",
        )
    found = stop_ids(model, tokenizer, given=given, variables=variables)
    if not found.ids:
        raise DistillSpecError(
            f"the {what} names no end-of-text token",
            where=f"pair.{what}: generation_config.json and tokenizer",
            fix=f"set eos_token_id in the {what}'s generation_config.json, or {KEY} in the recipe",
        )
    return found


def _named(model: nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Token -> who names it."""
    settings = None if model is None else bare_model(model).generation_config
    configured = None if settings is None else settings.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    found = {int(token): "generation_config" for token in several if token is not None}
    if tokenizer.eos_token_id is not None:
        found.setdefault(int(tokenizer.eos_token_id), "tokenizer")
    return found


def _answers(
    tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any] | None
) -> Iterator[_Written]:
    """What the template makes of each kind of answer that it takes."""
    template = ChatTemplate(tokenizer, variables)
    if not template.exists:
        return
    special = {number for number, one in tokenizer.added_tokens_decoder.items() if one.special}
    asked = [{"role": "user", "content": "Hi"}]
    for answer in _ANSWERS:
        calls = "tool_calls" in answer
        tools = [_TOOL] if calls else None
        try:
            prompt = template.prompt(asked, tools)
            whole = template.conversation([*asked, {"role": "assistant", **answer}], tools)
        except DistillSpecError:
            continue
        said = whole[common_length(prompt, whole) :]
        if ("look" if calls else _SAID) not in said:
            continue  # it is not shown
        tokens = tokenizer(said, add_special_tokens=False)["input_ids"]
        end = len(tokens)
        while end and (
            tokens[end - 1] in special or not decoded(tokenizer, [tokens[end - 1]]).strip()
        ):
            end -= 1
        yield _Written(
            frozenset(special.intersection(tokens[:end])),
            tuple(token for token in tokens[end:] if token in special),
            calls,
        )


def _shown(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return f"{token} {tokenizer.convert_ids_to_tokens(token)!r}"
