"""Messages and tools of a row are checked, and errors name the message and the row."""

from __future__ import annotations

from typing import Any

import pytest

from distillspec.corpus.sources.messages import messages_of, tools_of
from distillspec.errors import DistillSpecError

ASK = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
WHERE = "data.jsonl, line 7"


def test_fields_that_are_null_are_dropped() -> None:
    assert messages_of([ASK, {**ANSWER, "name": None}], WHERE) == (ASK, ANSWER)
    assert tools_of(None, "tools", WHERE) is None
    assert tools_of('[{"type": "function"}]', "tools", WHERE) == ({"type": "function"},)


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "an empty list"),
        ("hello", "a text"),
        ([{"role": "user"}], "message 1 is not an object with 'role' and 'content'"),
        ([ASK, "4"], "message 2"),
        ([{"role": "user", "content": None}], "content of message 1 is null"),
        ([{"role": "user", "content": [{"type": "image"}]}], "of type 'image'"),
        ([{"role": "user", "content": ["a"]}], "a part that is a text"),
        ([ASK, {**ANSWER, "tool_calls": "x"}], "tool_calls of message 2 are a text"),
    ],
)
def test_faulty_messages_are_an_error_that_names_the_row(messages: Any, what: str) -> None:
    with pytest.raises(DistillSpecError, match=what) as caught:
        messages_of(messages, WHERE)
    assert caught.value.where == WHERE


@pytest.mark.parametrize(
    ("tools", "what"),
    [
        ({"a": 1}, "'tools' is an object, not a list of tools"),
        ("no JSON", "'tools' is a text, not a list of tools"),
        ("[" * 100_000, "'tools' is a text, not a list of tools"),
    ],
)
def test_faulty_tools_are_an_error_that_names_the_row(tools: Any, what: str) -> None:
    with pytest.raises(DistillSpecError, match=what) as caught:
        tools_of(tools, "tools", WHERE)
    assert caught.value.where == WHERE
