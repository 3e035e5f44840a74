"""A row of a user's data set -> a passage: its prompt and response, or its chat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from distillspec.corpus.sources.passage import Messages, Passage, Tools, chat_key, text_key
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.chat_template import ChatTemplate, SplitTurnError, Turn
from distillspec.recipe.data import HubSource, JsonlSource

# Fields that are taken where the source names none and the row lacks the usual ones.
QUESTION_AND_ANSWER = ("question", "answer")


class Chats:
    """What a target's template makes of chats, and an account of those that it cannot split."""

    def __init__(self, template: ChatTemplate, *, answers_wanted: bool = True) -> None:
        """answers_wanted: a chat is of use only with the answer that the data has for it."""
        self.template = template
        self._answers_wanted = answers_wanted
        self._split = 0
        self.first_error: SplitTurnError | None = None

    def turn(self, messages: Messages, tools: Tools | None, where: str) -> Turn | None:
        """A chat whose answer cannot be told from its prompt is counted: it is None, or has no
        answer where none is wanted.
        """
        try:
            return self.template.turn(messages, tools, where=where)
        except SplitTurnError as error:
            self.first_error = self.first_error or error
            self._split += 1
            if self._answers_wanted:
                return None
            return Turn(self.template.prompt(messages[:-1], tools, where=where), None)

    def note(self) -> str | None:
        """How many chats were left out or lost their answers, with the first of them."""
        if self.first_error is None:
            return None
        lost = "left out" if self._answers_wanted else "taken without the answers of the data"
        return (
            f"{self._split} chats {lost}: {self.first_error.what} ({self.first_error.where}); "
            f"{self.first_error.fix}"
        )


def passage_of(
    row: Mapping[str, Any],
    source: JsonlSource | HubSource,
    chats: Chats | None,
    *,
    name: str,
    where: str,
    section: str = "data.source",
) -> Passage | None:
    """The passage of one row. A row that has both a chat and a prompt is taken as its chat, and
    where the source names turns, the first turn is the prompt. None for a text too short to be cut
    where the source wants it, and for a chat that the template cannot split.

    chats: None where no row is one. name: of the source, for the key. where: the row's place,
    section: the source's place in recipe or suite, for errors: wrong or missing fields are
    DistillSpecErrors.
    """
    found = _passage_of(row, source, chats, name, where, section)
    return found and found._replace(document=_document(row, source, where))


def _passage_of(
    row: Mapping[str, Any],
    source: JsonlSource | HubSource,
    chats: Chats | None,
    name: str,
    where: str,
    section: str,
) -> Passage | None:
    category = _category(row, source, where)
    if chats is not None and source.turns is None and field(row, source.messages) is not None:
        messages = _messages(field(row, source.messages), where)
        tools = _tools(field(row, source.tools), source.tools, where)
        return _chat(messages, tools, chats, category, name=name, where=where)
    prompt = _prompt(row, source, where, section)
    if source.after_words is not None:
        cut = _cut(prompt, source.after_words)
        return cut and Passage(text_key(name, cut[0]), *cut, "plain", category)
    place = _also(row, source, "response")
    response = field(row, place)
    if response is not None:
        response = _text(response, f"'{place}'", where)
    if chats is not None and source.as_chat == "if-template" and chats.template.exists:
        said: Messages = ({"role": "user", "content": prompt},)
        if response is not None:
            said = (*said, {"role": "assistant", "content": response})
        return _chat(said, None, chats, category, name=name, where=where)
    return Passage(text_key(name, prompt), prompt, response, "plain", category)


def _cut(text: str, words: int) -> tuple[str, str] | None:
    """The first words, and all behind them with the space between; None without more."""
    found = re.match(rf"\s*\S+(?:\s+\S+){{{words - 1}}}(?=\s+\S)", text)
    return None if found is None else (found[0], text[found.end() :])


def too_short(source: JsonlSource | HubSource, where: str, section: str) -> DistillSpecError:
    """The error for a source of which no text can be cut."""
    return DistillSpecError(
        f"no text has more than {source.after_words} words",
        where=where,
        fix=f"lower {section}.after_words",
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


def check_categories(
    passages: Sequence[Passage], source: JsonlSource | HubSource, where: str
) -> None:
    """Rows may lack a category, but not all of them: then its field has another name."""
    if source.category is not None and all(p.category is None for p in passages):
        raise DistillSpecError(
            f"no row has a category: none has a field '{source.category}' with a value",
            where=where,
            fix="name the field that has it, or take `category` out of the source",
        )


def _also(row: Mapping[str, Any], source: JsonlSource | HubSource, role: str) -> str:
    """The field of a prompt or response: the one that is named, or, in a row of question and answer
    for which nothing is named, that.
    """
    named: str = getattr(source, role)
    asks = source.prompt == "prompt" and field(row, "prompt") is None and "question" in row
    if not asks or named != role or field(row, named) is not None:
        return named
    return QUESTION_AND_ANSWER[role == "response"]


def _prompt(
    row: Mapping[str, Any], source: JsonlSource | HubSource, where: str, section: str
) -> str:
    name = source.turns or _also(row, source, "prompt")
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
            fix=f"its fields are: {', '.join(map(str, row)) or 'none'}; name yours in a recipe or "
            f"suite with {ways}, or rename it in the file",
        )
    if source.turns:
        if not isinstance(found, Sequence) or isinstance(found, str) or not found:
            raise DistillSpecError(
                f"'{name}' is {_said(found)}, not a list of turns",
                where=where,
                fix=f'write it as ["...", ...], or name a text with {section}.prompt=...',
            )
        name, found = f"{name}.0", found[0]
    prompt = _text(found, f"'{name}'", where)
    if not prompt:
        raise DistillSpecError(
            f"'{name}' is empty", where=where, fix="fill it, or take the row out"
        )
    return source.before + prompt + source.after


def _category(row: Mapping[str, Any], source: JsonlSource | HubSource, where: str) -> str | None:
    found = None if source.category is None else field(row, source.category)
    if found is None or found == "":
        return None
    if not isinstance(found, str | int):
        raise DistillSpecError(
            f"'{source.category}' is {_said(found)}, not the name of a category",
            where=where,
            fix="write it as a string",
        )
    return source.merge.get(str(found), str(found))


def _document(row: Mapping[str, Any], source: JsonlSource | HubSource, where: str) -> str:
    """What the source says that the row is a part of; "" where it does not, and rows are alone."""
    if source.document is None:
        return ""
    found = field(row, source.document)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise DistillSpecError(
            f"'{source.document}' is {_said(found)}, not the name of a document",
            where=where,
            fix="write the file, conversation or question that the row comes from as a string or "
            "a number, or take `document` out of the source",
        )
    return f"{source.document}={found}"


def _chat(
    messages: Messages,
    tools: Tools | None,
    chats: Chats,
    category: str | None,
    *,
    name: str,
    where: str,
) -> Passage | None:
    """The last message, where it is the assistant's, is the response; all before it the prompt."""
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    if not asked:
        raise DistillSpecError(
            "the chat is one answer without a question",
            where=where,
            fix="put the user's message before it, or take the row out",
        )
    turn = chats.turn(messages, tools, where)
    if turn is None:
        return None
    key = chat_key(name, asked, tools)
    return Passage(key, turn.prompt, turn.response, "chat", category, asked, tools)


def _messages(found: Any, where: str) -> Messages:
    """The messages as they stand in the row, as JSON has them, without fields that are null."""
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise DistillSpecError(
            f"the messages are {_said(found)}, not a list of messages",
            where=where,
            fix='write them as [{"role": "user", "content": "..."}, ...]',
        )
    for number, message in enumerate(found, start=1):
        calls = isinstance(message, Mapping) and message.get("tool_calls")
        if not isinstance(message, Mapping) or not {"role", "content"} <= {
            *message,
            *(["content"] if calls else []),
        }:
            raise DistillSpecError(
                f"message {number} is not an object with 'role' and 'content'",
                where=where,
                fix='write it as {"role": "user", "content": "..."}',
            )
        _text(message["role"], f"the role of message {number}", where)
        if calls:
            _check_calls(calls, number, where)
        if not (calls and message.get("content") is None):
            _check_content(message["content"], number, where)
    plain = json.loads(json.dumps([dict(message) for message in found], default=str))  # times
    return tuple({k: v for k, v in message.items() if v is not None} for message in plain)


def _check_content(content: Any, number: int, where: str) -> None:
    """A text, or a list of parts that are all text: a draft reads nothing else."""
    what = f"the content of message {number}"
    if not isinstance(content, list):
        _text(content, what, where)
        return
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise DistillSpecError(
                f"{what} has a part that is {_said(part)}"
                + (f" of type {kind!r}" if kind is not None else "")
                + ", and only text is read",
                where=where,
                fix='write parts as {"type": "text", "text": "..."}, or take the row out',
            )


def _check_calls(calls: Any, number: int, where: str) -> None:
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise DistillSpecError(
            f"the tool_calls of message {number} are {_said(calls)}, not a list of objects",
            where=where,
            fix='write each as {"type": "function", "function": {"name": ..., "arguments": ...}}',
        )


def _tools(found: Any, name: str, where: str) -> Tools | None:
    """The tools that a chat may call; some data sets hold them as JSON in a string."""
    if isinstance(found, str):
        with suppress(ValueError, RecursionError):
            found = json.loads(found) if found.strip() else None
    if not found:
        return None
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise DistillSpecError(
            f"'{name}' is {_said(found)}, not a list of tools",
            where=where,
            fix='write each as {"type": "function", "function": {"name": ..., "parameters": ...}}',
        )
    return tuple(json.loads(json.dumps(found, default=str)))


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise DistillSpecError(
            f"{what} is {_said(value)}, not a text", where=where, fix="write it as a string"
        )
    return value


def _said(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return "an empty list" if value == [] else names.get(type(value), type(value).__name__)
