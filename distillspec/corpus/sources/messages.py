"""The messages and tools of a chat in a row of a user's data set, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from distillspec.corpus.sources.passage import Messages, Tools
from distillspec.errors import DistillSpecError


def messages_of(value: Any, where: str) -> Messages:
    """The messages of a row in JSON's types, without fields that are null.

    Args:
        value: The row's value.
        where: The row, for errors.

    Raises:
        DistillSpecError: The value is not a list of messages, or a message holds more than text.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DistillSpecError(
            f"the messages are {type_name(value)}, not a list of messages",
            where=where,
            fix='write them as [{"role": "user", "content": "..."}, ...]',
        )
    for number, message in enumerate(value, start=1):
        # A message with tool calls may lack its content.
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
        checked_text(message["role"], f"the role of message {number}", where)
        if calls:
            _check_calls(calls, number, where)
        if not (calls and message.get("content") is None):
            _check_content(message["content"], number, where)
    plain = json.loads(json.dumps([dict(message) for message in value], default=str))  # times
    return tuple({k: v for k, v in message.items() if v is not None} for message in plain)


def _check_content(content: Any, number: int, where: str) -> None:
    """Check for a text, or a list of parts that are all text: a draft reads nothing else."""
    what = f"the content of message {number}"
    if not isinstance(content, list):
        checked_text(content, what, where)
        return
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise DistillSpecError(
                f"{what} has a part that is {type_name(part)}"
                + (f" of type {kind!r}" if kind is not None else "")
                + ", and only text is read",
                where=where,
                fix='write parts as {"type": "text", "text": "..."}, or remove the row',
            )


def _check_calls(calls: Any, number: int, where: str) -> None:
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise DistillSpecError(
            f"the tool_calls of message {number} are {type_name(calls)}, not a list of objects",
            where=where,
            fix='write each as {"type": "function", "function": {"name": ..., "arguments": ...}}',
        )


def tools_of(value: Any, name: str, where: str) -> Tools | None:
    """The tools that a chat may call; some data sets hold them as JSON in a string.

    Args:
        value: The row's value.
        name: The field, for errors.
        where: The row, for errors.

    Raises:
        DistillSpecError: The value is not a list of tools.
    """
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value) if value.strip() else None
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise DistillSpecError(
            f"'{name}' is {type_name(value)}, not a list of tools",
            where=where,
            fix='write each as {"type": "function", "function": {"name": ..., "parameters": ...}}',
        )
    return tuple(json.loads(json.dumps(value, default=str)))


def checked_text(value: Any, what: str, where: str) -> str:
    """The value if it is a string; else a DistillSpecError that names its type."""
    if not isinstance(value, str):
        raise DistillSpecError(
            f"{what} is {type_name(value)}, not a text", where=where, fix="write it as a string"
        )
    return value


def type_name(value: Any) -> str:
    """The JSON type of a value, for errors."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return "an empty list" if value == [] else names.get(type(value), type(value).__name__)
