"""A row of a user's data set -> a passage: its prompt and response, or its chat."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distillspec.corpus.passage import Passage, text_key
from distillspec.corpus.tokenizing import Tokenizer
from distillspec.errors import DistillSpecError
from distillspec.models.template import render_chat
from distillspec.recipe.data import Hub, Jsonl


def passage_of(
    row: Mapping[str, Any],
    source: Jsonl | Hub,
    tokenizer: Tokenizer,
    *,
    name: str,
    where: str,
    section: str = "data.source",
    variables: Mapping[str, Any] | None = None,
) -> Passage | None:
    """The passage of one row. A row that has both a chat and a prompt is taken as its chat, and
    where the source names turns, the first turn is the prompt. None for a text too short to be cut
    where the source wants it.

    name: of the source, for the key. where: the row's place, section: the source's place in recipe
    or suite, for errors: wrong or missing fields are DistillSpecErrors. variables: as `render_chat`
    has them.
    """
    category = _category(row, source, where)
    if source.turns is None and field(row, source.messages) is not None:
        messages = field(row, source.messages)
        chat = _chat(messages, tokenizer, variables, name=name, where=where)
        return chat._replace(category=category)
    prompt = _prompt(row, source, where, section)
    if source.after_words is not None:
        cut = _cut(prompt, source.after_words)
        return cut and Passage(text_key(name, cut[0]), *cut, "plain", category)
    response = field(row, source.response)
    if response is not None:
        response = _text(response, f"'{source.response}'", where)
    if source.as_chat == "if-template" and tokenizer.chat_template is not None:
        asked = ({"role": "user", "content": prompt},)
        prompt = render_chat(tokenizer, asked, variables)
        return Passage(text_key(name, prompt), prompt, response, "chat", category, asked)
    return Passage(text_key(name, prompt), prompt, response, "plain", category)


def _cut(text: str, words: int) -> tuple[str, str] | None:
    """The first words, and all behind them with the space between; None without more."""
    found = re.match(rf"\s*\S+(?:\s+\S+){{{words - 1}}}(?=\s+\S)", text)
    return None if found is None else (found[0], text[found.end() :])


def too_short(source: Jsonl | Hub, where: str, section: str) -> DistillSpecError:
    """The error for a source of which no text can be cut."""
    return DistillSpecError(
        f"no text has more than {source.after_words} words",
        where=where,
        mend=f"lower {section}.after_words",
    )


def field(row: Mapping[str, Any], path: str) -> Any:
    """What stands at `path`: a field's name, or `a.b` and `a.0` for what is inside; None if absent.

    A field whose own name has a dot comes first.
    """
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def outer(path: str, fields: Iterable[str]) -> str:
    """The field that `path` begins in: itself where it is one."""
    return path if path in set(fields) else path.partition(".")[0]


def check_categories(passages: Sequence[Passage], source: Jsonl | Hub, where: str) -> None:
    """Rows may lack a category, but not all of them: then its field has another name."""
    if source.category is not None and all(p.category is None for p in passages):
        raise DistillSpecError(
            f"no row has a category: none has a field '{source.category}' with a value",
            where=where,
            mend="name the field that has it, or take `category` out of the source",
        )


def _prompt(row: Mapping[str, Any], source: Jsonl | Hub, where: str, section: str) -> str:
    name = source.turns or source.prompt
    found = field(row, name)
    if found is None:
        ways, lacks = f"{section}.prompt=...", f"no '{name}'"
        if source.turns:
            ways = f"{section}.turns=..., or {ways}"
        elif source.messages:
            ways = f"{ways}, or {section}.messages=..."
            lacks = f"neither '{name}' nor '{source.messages}'"
        raise DistillSpecError(
            f"the row has {lacks}",
            where=where,
            mend=f"its fields are: {', '.join(map(str, row)) or 'none'}; name yours in a recipe or "
            f"suite with {ways}, or rename it in the file",
        )
    if source.turns:
        if not isinstance(found, Sequence) or isinstance(found, str) or not found:
            raise DistillSpecError(
                f"'{name}' is {_said(found)}, not a list of turns",
                where=where,
                mend=f'write it as ["...", ...], or name a text with {section}.prompt=...',
            )
        name, found = f"{name}.0", found[0]
    prompt = _text(found, f"'{name}'", where)
    if not prompt:
        raise DistillSpecError(
            f"'{name}' is empty", where=where, mend="fill it, or take the row out"
        )
    return source.before + prompt


def _category(row: Mapping[str, Any], source: Jsonl | Hub, where: str) -> str | None:
    found = None if source.category is None else field(row, source.category)
    if found is None or found == "":
        return None
    if not isinstance(found, str | int):
        raise DistillSpecError(
            f"'{source.category}' is {_said(found)}, not the name of a category",
            where=where,
            mend="write it as a string",
        )
    return source.merge.get(str(found), str(found))


def _chat(
    messages: Any,
    tokenizer: Tokenizer,
    variables: Mapping[str, Any] | None,
    *,
    name: str,
    where: str,
) -> Passage:
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
    asked = tuple(messages[:-1] if answered else messages)
    if not asked:
        raise DistillSpecError(
            "the chat is one answer without a question",
            where=where,
            mend="put the user's message before it, or take the row out",
        )
    prompt = render_chat(tokenizer, asked, variables)
    response = messages[-1]["content"] if answered else None
    return Passage(text_key(name, prompt), prompt, response, "chat", messages=asked)


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
