"""A row of a user's data set -> a passage: its prompt and response, or its chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillspec.corpus.passage import Passage, text_key
from distillspec.corpus.tokenizing import Tokenizer
from distillspec.errors import DistillSpecError
from distillspec.models.template import render_chat
from distillspec.recipe.schema import Hub, Jsonl


def passage_of(
    row: Mapping[str, Any], source: Jsonl | Hub, tokenizer: Tokenizer, *, name: str, where: str
) -> Passage:
    """The passage of one row. A row that has both a chat and a prompt is taken as its chat.

    name: of the source, for the key. where: the row's place, for errors: wrong or missing fields
    are DistillSpecErrors.
    """
    if row.get(source.messages) is not None:
        return _chat(row[source.messages], tokenizer, name=name, where=where)
    if row.get(source.prompt) is None:
        raise DistillSpecError(
            f"the row has neither '{source.prompt}' nor '{source.messages}'",
            where=where,
            mend=f"its fields are: {', '.join(map(str, row)) or 'none'}; "
            "name yours with data.source.prompt=..., or data.source.messages=...",
        )
    prompt = _text(row[source.prompt], f"'{source.prompt}'", where)
    if not prompt:
        raise DistillSpecError(
            f"'{source.prompt}' is empty", where=where, mend="fill it, or take the row out"
        )
    response = row.get(source.response)
    if response is not None:
        response = _text(response, f"'{source.response}'", where)
    return Passage(text_key(name, prompt), prompt, response, "plain")


def _chat(messages: Any, tokenizer: Tokenizer, *, name: str, where: str) -> Passage:
    """The last message, where it is the assistant's, is the response; all before it the prompt."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DistillSpecError(
            f"the messages are {_said(messages)}, not a list of messages",
            where=where,
            mend='write them as [{"role": "user", "content": "..."}, ...]',
        )
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise DistillSpecError(
                f"message {number} is not an object with 'role' and 'content'",
                where=where,
                mend='write it as {"role": "user", "content": "..."}',
            )
        _text(message["role"], f"the role of message {number}", where)
        _text(message["content"], f"the content of message {number}", where)
    answered = messages[-1]["role"] == "assistant"
    asked = list(messages[:-1] if answered else messages)
    if not asked:
        raise DistillSpecError(
            "the chat is one answer without a question",
            where=where,
            mend="put the user's message before it, or take the row out",
        )
    prompt = render_chat(tokenizer, asked)
    response = messages[-1]["content"] if answered else None
    return Passage(text_key(name, prompt), prompt, response, "chat")


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise DistillSpecError(
            f"{what} is {_said(value)}, not a text", where=where, mend="write it as a string"
        )
    return value


def _said(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return "an empty list" if value == [] else names.get(type(value), type(value).__name__)
