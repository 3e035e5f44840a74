"""Chats become text through the target's chat template: prompts and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date as Date
from datetime import datetime, time
from functools import cached_property
from string import ascii_letters
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.recipe.data import TEMPLATE_DATE

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

_MARKER = "distillspec"  # a word that no template changes
_CLOCK = "strftime_now"
_SHOWN = 120  # characters around the position where two renderings differ


class Turn(NamedTuple):
    """A prompt and its answer.

    Attributes:
        prompt: The text before the answer.
        response: The answer as the template writes it, with everything after it; None for a chat
            that ends with a question.
    """

    prompt: str
    response: str | None


class SplitTurnError(DistillSpecError):
    """The template does not write an answer after the prompt that asks for it."""


class ChatTemplate:
    """The template of a tokenizer, with its variables and a fixed date.

    Its texts already contain the special tokens: encode them with `add_special_tokens=False`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        variables: Mapping[str, Any] | None = None,
        date: Date = TEMPLATE_DATE,
    ) -> None:
        """Wrap the template of `tokenizer`. A missing template is an error at the first use.

        Args:
            tokenizer: The tokenizer.
            variables: Variables that the template reads, such as `enable_thinking`.
            date: The template's current date, at midnight.
        """
        self._tokenizer, self._variables, self._date = tokenizer, dict(variables or {}), date

    @property
    def exists(self) -> bool:
        return self._tokenizer.chat_template is not None

    def hash(self) -> str:
        """SHA-256 (hex) of the template, and of its variables if there are any."""
        template = self._required()
        text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
        if self._variables:
            text += json.dumps(self._variables, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, *, where: str = ""
    ) -> str:
        """The text that asks the model for its next turn.

        Args:
            messages: `[{"role": ..., "content": ...}, ...]`, possibly with tool calls and parts.
            tools: Tools that the model may call.
            where: Location of the messages, for errors.
        """
        return self._rendered(messages, tools, where, asks=True)

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, *, where: str = ""
    ) -> str:
        """The text of a complete conversation, without a request for another turn."""
        return self._rendered(messages, tools, where, asks=False)

    def turn(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, *, where: str = ""
    ) -> Turn:
        """A chat as its prompt and, if the last message is the assistant's, its answer.

        The answer is the text of the conversation after the prompt.

        Raises:
            SplitTurnError: The conversation does not start with the prompt, or lacks the answer.
        """
        if messages[-1].get("role") != "assistant":
            return Turn(self.prompt(messages, tools, where=where), None)
        # 1. The prompt must be the start of the conversation.
        prompt = self.prompt(messages[:-1], tools, where=where)
        conversation = self.conversation(messages, tools, where=where)
        if not conversation.startswith(prompt):
            raise self._differ(prompt, conversation, where)
        # 2. The rest is the answer, and must contain every tool call.
        response = conversation[len(prompt) :]
        names = [str(_function(call).get("name")) for call in messages[-1].get("tool_calls") or ()]
        missing = next((name for name in names if name not in response), None)
        if missing is not None or not response:
            lacks = "the answer" if missing is None else f"the call of {missing!r}"
            raise SplitTurnError(
                f"the chat template does not write {lacks}; after the prompt it writes "
                f"{response[:_SHOWN]!r}",
                where=self._location(where),
                fix="use a target whose template writes it, or remove the row",
            )
        return Turn(prompt, response)

    @cached_property
    def takes_parts(self) -> bool:
        """Whether contents may be lists of parts whose text the template writes."""
        asked = [{"role": "user", "content": [{"type": "text", "text": _MARKER}]}]
        try:
            text = self._apply(asked, None, asks=False)
        except Exception:
            return False
        # If the marker is in quotes, the template printed the list and did not read its parts.
        return _MARKER in text and f"'{_MARKER}'" not in text and f'"{_MARKER}"' not in text

    def _rendered(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None, where: str, *, asks: bool
    ) -> str:
        self._required()
        made = [_as_templates_read(message, self.takes_parts) for message in messages]
        try:
            return self._apply(made, tools, asks=asks)
        except Exception as error:  # a template is a foreign program: any class
            raise DistillSpecError(
                f"the chat template refuses these messages: {_first_line(error)}",
                where=self._location(where),
                fix="each message needs role and content, in an order that the template allows",
            ) from error

    def _apply(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None, *, asks: bool
    ) -> str:
        listed: Any = [dict(tool) for tool in tools] if tools else None
        template = self._tokenizer.get_chat_template(tools=listed)
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=listed,
            chat_template=self._without_clock(template),
            tokenize=False,
            add_generation_prompt=asks,
            **{**self._date_of(template), **self._variables},
        )
        assert isinstance(text, str)
        return text

    def _without_clock(self, template: str) -> str:
        """The template with a macro that replaces the function that reads the clock.

        It is a macro because the library passes no functions to a template.
        """
        if _CLOCK not in template:
            return template
        midnight = datetime.combine(self._date, time())
        marks = [f"%{flag}{letter}" for letter in ascii_letters for flag in ("-", "")]
        # `%%` is replaced first and restored last, so that `%%Y` does not become a year.
        written = [("%%", "\0"), *((mark, midnight.strftime(mark)) for mark in marks), ("\0", "%")]
        filters = "".join(f" | replace({mark!r}, {text!r})" for mark, text in written)
        # Jinja removes the line break after the block, so the template's text does not change.
        return (
            f"{{% macro {_CLOCK}(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}\n{template}"
        )

    def _date_of(self, template: str) -> dict[str, str]:
        """`date_string`, unless the template sets its own constant, as serving engines do too."""
        if _CLOCK not in template and "set date_string" in template:
            return {}
        return {"date_string": self._date.strftime("%d %b %Y")}

    def _differ(self, prompt: str, conversation: str, where: str) -> SplitTurnError:
        position = common_length(prompt, conversation)
        first = max(position - _SHOWN // 2, 0)
        return SplitTurnError(
            "the chat template writes the conversation differently from the prompt that asks "
            f"for its answer; from character {first} on the prompt is "
            f"{prompt[first : position + _SHOWN]!r}, the conversation "
            f"{conversation[first : position + _SHOWN]!r}",
            where=self._location(where),
            fix="set the template's variables so that both agree, such as "
            "data.template_variables={enable_thinking: false}, write the answer as the template "
            "does (with its reasoning), or remove the row",
        )

    def _location(self, where: str) -> str:
        name = f"chat template of {self._tokenizer.name_or_path or 'the tokenizer'}"
        return f"{where}; {name}" if where else name

    def _required(self) -> str | dict[str, str]:
        template: str | dict[str, str] | None = self._tokenizer.chat_template
        if template is None:
            raise DistillSpecError(
                "the data are chats, but the target's tokenizer has no chat template",
                where=str(self._tokenizer.name_or_path),
                fix="use an instruction-tuned target, or set plain prompt and response fields",
            )
        return template


def common_length(first: str, second: str) -> int:
    """Length of the common prefix, in characters."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _as_templates_read(message: Message, takes_parts: bool) -> dict[str, Any]:
    """Parse the arguments of tool calls, and join contents of parts to text if needed.

    The API writes arguments as a JSON string, and serving engines parse it before rendering. Parts
    are joined by line breaks, as in vLLM.
    """
    result = dict(message)
    content = result.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str) and not takes_parts:
        result["content"] = "\n".join(str(part.get("text", "")) for part in content)
    if result.get("tool_calls"):
        result["tool_calls"] = [_parsed_call(call) for call in result["tool_calls"]]
    return result


def _parsed_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(_function(call))
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            function["arguments"] = json.loads(arguments)
        except (ValueError, RecursionError):
            return dict(call)
    return {**call, "function": function} if "function" in call else function


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """`{"name": ..., "arguments": ...}`, which some data sets write without the outer object."""
    function = call.get("function", call)
    return function if isinstance(function, Mapping) else {}


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "")
    known = type(error).__module__.startswith("jinja2")
    return line if known and line else f"{type(error).__name__}: {line}"
