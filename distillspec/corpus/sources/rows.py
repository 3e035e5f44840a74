"""A row of a user's data set becomes a passage: its prompt and response, or its chat."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distillspec.corpus.sources.messages import checked_text, messages_of, tools_of, type_name
from distillspec.corpus.sources.passage import Messages, Passage, Tools, chat_key, text_key
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.chat_template import ChatTemplate, SplitTurnError, Turn
from distillspec.recipe.data import HubSource, JsonlSource

# Fields that are read where the source names none and the row lacks the usual ones.
QUESTION_AND_ANSWER = ("question", "answer")


class Chats:
    """Renders chats with the target's template, and counts those that it cannot split.

    Attributes:
        template: The target's chat template.
        first_error: The error of the first chat that could not be split.
    """

    def __init__(self, template: ChatTemplate, *, answers_wanted: bool = True) -> None:
        """Keep the template.

        Args:
            template: The target's chat template.
            answers_wanted: Whether chats are used only with the answer in the data.
        """
        self.template = template
        self._answers_wanted = answers_wanted
        self._split = 0
        self.first_error: SplitTurnError | None = None

    def turn(self, messages: Messages, tools: Tools | None, where: str) -> Turn | None:
        """The rendered chat; a chat whose answer cannot be separated from its prompt is counted.

        Such a chat is None, or has no answer if answers are not wanted.
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
        """How many chats were left out or lost their answers, with the error of the first one."""
        if self.first_error is None:
            return None
        lost = "left out" if self._answers_wanted else "used without the answers in the data"
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
    """The passage of one row.

    A row that has both a chat and a prompt is read as a chat. Where the source names turns, the
    first turn is the prompt.

    Args:
        row: Values by field.
        source: The fields to read.
        chats: Renders chats; None if chats are not read.
        name: The source's name, for the key.
        where: The row, for errors.
        section: Where recipe or suite name the source, for errors.

    Returns:
        None for a text that is too short to be cut after `source.after_words`, and for a chat that
        the template cannot split.

    Raises:
        DistillSpecError: A field is missing, or has a wrong type.
    """
    passage = _passage_of(row, source, chats, name, where, section)
    return passage and passage._replace(document=_document(row, source, where))


def _passage_of(
    row: Mapping[str, Any],
    source: JsonlSource | HubSource,
    chats: Chats | None,
    name: str,
    where: str,
    section: str,
) -> Passage | None:
    # 1. A chat takes precedence over a prompt in the same row.
    category = _category(row, source, where)
    if chats is not None and source.turns is None and field(row, source.messages) is not None:
        messages = messages_of(field(row, source.messages), where)
        tools = tools_of(field(row, source.tools), source.tools, where)
        return _chat(messages, tools, chats, category, name=name, where=where)
    # 2. A text that is cut has its own end as the response.
    prompt = _prompt(row, source, where, section)
    if source.after_words is not None:
        cut = _cut(prompt, source.after_words)
        return cut and Passage(text_key(name, cut[0]), *cut, "plain", category)
    # 3. Prompt and response, as a chat of one turn if the template allows it.
    path = _path_of(row, source, "response")
    response = field(row, path)
    if response is not None:
        response = checked_text(response, f"'{path}'", where)
    if chats is not None and source.as_chat == "if-template" and chats.template.exists:
        messages = ({"role": "user", "content": prompt},)
        if response is not None:
            messages = (*messages, {"role": "assistant", "content": response})
        return _chat(messages, None, chats, category, name=name, where=where)
    return Passage(text_key(name, prompt), prompt, response, "plain", category)


def _cut(text: str, words: int) -> tuple[str, str] | None:
    """The first `words` words, and the rest with the space before it; None if there is no rest."""
    match = re.match(rf"\s*\S+(?:\s+\S+){{{words - 1}}}(?=\s+\S)", text)
    return None if match is None else (match[0], text[match.end() :])


def too_short(source: JsonlSource | HubSource, where: str, section: str) -> DistillSpecError:
    """The error for a source whose texts are all too short to be cut."""
    return DistillSpecError(
        f"no text has more than {source.after_words} words",
        where=where,
        fix=f"lower {section}.after_words",
    )


def field(row: Mapping[str, Any], path: str) -> Any:
    """The value at `path`: a field's name, or `a.b` and `a.0` for nested values; None if absent.

    A field whose name contains the dot takes precedence.
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
    """The field in which `path` begins; `path` itself if it is a field."""
    return path if path in set(fields) else path.partition(".")[0]


def check_categories(
    passages: Sequence[Passage], source: JsonlSource | HubSource, where: str
) -> None:
    """Raise a DistillSpecError if no row has a category: the field then has another name."""
    if source.category is not None and all(p.category is None for p in passages):
        raise DistillSpecError(
            f"no row has a category: none has a field '{source.category}' with a value",
            where=where,
            fix="name the field that has it, or remove `category` from the source",
        )


def _path_of(row: Mapping[str, Any], source: JsonlSource | HubSource, role: str) -> str:
    """The path of a row's prompt or response.

    Where the source names no field, a row with `question` and `answer` is read by these.
    """
    named: str = getattr(source, role)
    is_question = source.prompt == "prompt" and field(row, "prompt") is None and "question" in row
    if not is_question or named != role or field(row, named) is not None:
        return named
    return QUESTION_AND_ANSWER[role == "response"]


def _prompt(
    row: Mapping[str, Any], source: JsonlSource | HubSource, where: str, section: str
) -> str:
    name = source.turns or _path_of(row, source, "prompt")
    value = field(row, name)
    if value is None:
        ways, lacks = f"{section}.prompt=...", f"no '{name}'"
        if source.turns:
            ways = f"{section}.turns=..., or {ways}"
        elif source.messages:
            ways = f"{ways}, or {section}.messages=..."
            lacks = f"neither '{name}' nor '{source.messages}'"
        raise DistillSpecError(
            f"the row has {lacks}",
            where=where,
            fix=f"name a field in the recipe or suite with {ways}, or rename it in the file; the "
            f"row's fields are: {', '.join(map(str, row)) or 'none'}",
        )
    if source.turns:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise DistillSpecError(
                f"'{name}' is {type_name(value)}, not a list of turns",
                where=where,
                fix=f'write it as ["...", ...], or name a text with {section}.prompt=...',
            )
        name, value = f"{name}.0", value[0]
    prompt = checked_text(value, f"'{name}'", where)
    if not prompt:
        raise DistillSpecError(f"'{name}' is empty", where=where, fix="fill it, or remove the row")
    return source.before + prompt + source.after


def _category(row: Mapping[str, Any], source: JsonlSource | HubSource, where: str) -> str | None:
    value = None if source.category is None else field(row, source.category)
    if value is None or value == "":
        return None
    if not isinstance(value, str | int):
        raise DistillSpecError(
            f"'{source.category}' is {type_name(value)}, not the name of a category",
            where=where,
            fix="write it as a string",
        )
    return source.merge.get(str(value), str(value))


def _document(row: Mapping[str, Any], source: JsonlSource | HubSource, where: str) -> str:
    """The document that the row is a part of; "" if the source names no field for it."""
    if source.document is None:
        return ""
    value = field(row, source.document)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DistillSpecError(
            f"'{source.document}' is {type_name(value)}, not the name of a document",
            where=where,
            fix="write the file, conversation or question that the row comes from as a string or "
            "a number, or remove `document` from the source",
        )
    return f"{source.document}={value}"


def _chat(
    messages: Messages,
    tools: Tools | None,
    chats: Chats,
    category: str | None,
    *,
    name: str,
    where: str,
) -> Passage | None:
    """The passage of a chat, whose last message is the response if it is the assistant's."""
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    if not asked:
        raise DistillSpecError(
            "the chat is one answer without a question",
            where=where,
            fix="put the user's message before it, or remove the row",
        )
    turn = chats.turn(messages, tools, where)
    if turn is None:
        return None
    key = chat_key(name, asked, tools)
    return Passage(key, turn.prompt, turn.response, "chat", category, asked, tools)
