"""One request to an OpenAI-compatible API, and what may become of it.

The client library speaks HTTP; what it takes for an answer is checked here, since servers differ.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from distillspec.corpus.served.answers import Answer
from distillspec.corpus.served.connection import bounded_client
from distillspec.corpus.served.request import Question
from distillspec.corpus.served.retry import UnreachableError, UnusableError, asked_wait
from distillspec.corpus.stores.store_folder import Setting
from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import EndpointConfig, check_can_ask, key_of

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_TRIED_AGAIN = {408, 409, 425, 429}  # and all from 500 on
_OF_THE_PROMPT = {400, 413, 422}  # may be: too long, or filtered
_LONGEST_WAIT = 300.0  # seconds; who asks for more is asked again by hand
_SHOWN = 300  # characters of a server's words


class ServedResponse(NamedTuple):
    """How answers are: from the whole distribution at `temperature`, of at most `max_tokens`."""

    temperature: float
    max_tokens: int
    seed: int


class RefusedError(DistillSpecError):
    """What another try cannot mend, while the next prompt may well be answered."""


class EndpointClient:
    """Asks the endpoint of a recipe."""

    def __init__(
        self, endpoint: EndpointConfig, library: AsyncOpenAI, key: str | None, drawn: ServedResponse
    ) -> None:
        self._endpoint, self._library, self._key = endpoint, library, key
        self._fields = _fields(endpoint, drawn)
        self._seed = drawn.seed

    async def answer(self, question: Question, attempt: int) -> Answer:
        """The target's answer. attempt: the number of the try, for its seed.

        Errors: UnreachableError, UnusableError; DistillSpecError for what another try cannot mend,
        RefusedError where that may be due to the prompt.
        """
        import openai

        endpoint = self._endpoint
        chat = endpoint.api == "chat"
        body: dict[str, Any] = {
            "model": endpoint.model,
            "messages" if chat else "prompt": as_sent(question),
            **({"tools": question.tools} if question.tools else {}),
            **self._fields,
            **({"seed": question.seed(self._seed, attempt)} if endpoint.send_seed else {}),
        }
        path = "/chat/completions" if chat else "/completions"
        try:
            async with asyncio.timeout(endpoint.timeout_seconds):  # one that trickles ends as well
                reply = await self._library.post(path, cast_to=object, body=body)
        except (openai.APITimeoutError, TimeoutError) as error:
            raise UnreachableError(f"no answer within {endpoint.timeout_seconds:g} s") from error
        except openai.APIConnectionError as error:
            if isinstance(fault := _root(error), UnusableError):
                raise fault from error
            raise UnreachableError(f"no connection ({type(fault).__name__})") from error
        except openai.APIStatusError as error:
            raise self._refusal(error, question) from error
        except openai.OpenAIError as error:
            raise UnusableError(f"the client library gives up: {type(error).__name__}") from error
        except (ValueError, RecursionError) as error:  # the library reads JSON
            raise UnusableError("the answer is not JSON") from error
        return _answer(reply, chat=chat)

    def _refusal(self, error: APIStatusError, question: Question) -> Exception:
        status, said = error.status_code, self._said(error)
        if status in _TRIED_AGAIN or status >= 500:
            wait = asked_wait(error.response.headers.get("retry-after"))
            if wait is None or wait <= _LONGEST_WAIT:
                return UnreachableError(f"status {status}{said}", wait=wait)
            fix = f"start the same command again in {wait:,.0f} s, as the server asks"
        elif 300 <= status < 400:
            fix = (
                "no prompt is sent on to where a server points: if you trust that address, give it "
                f"as pair.endpoint.url (it names {_location(error)})"
            )
        elif status in (401, 403):
            variable = self._endpoint.key_variable
            fix = (
                f"put a key that this server takes into the environment variable {variable}"
                if variable
                else "name the environment variable that holds the key: pair.endpoint.key_variable"
            )
        elif status == 404:
            fix = (
                "mend pair.endpoint.url (it mostly ends in /v1), pair.endpoint.model, or "
                "pair.endpoint.api"
            )
        else:
            fix = (
                "mend what the server names: pair.endpoint.{model, send_seed, length_field, body}, "
                "data.max_prompt_tokens, data.max_response_tokens"
            )
        kind = RefusedError if status in _OF_THE_PROMPT else DistillSpecError
        return kind(
            f"the endpoint refuses: status {status}{said}",
            where=place(self._endpoint, question),
            fix=fix,
        )

    def _said(self, error: APIStatusError) -> str:
        """The server's words, in one line and without the key, should it repeat it."""
        body = error.body
        if isinstance(body, Mapping):
            body = body.get("message") or body.get("detail") or body.get("error") or body
        text = " ".join(str(body or "").split())
        if self._key:
            text = text.replace(self._key, "<key>")
        return f": {text[:_SHOWN]}" if text else ""


def place(endpoint: EndpointConfig, question: Question) -> str:
    """Where a fault lies, for errors: one prompt alone may be what a server cannot answer."""
    return f"pair.endpoint: {endpoint.url}, asked with prompt {question.key}"


@asynccontextmanager
async def connected(
    endpoint: EndpointConfig, drawn: ServedResponse
) -> AsyncIterator[EndpointClient]:
    """A client with its connections. Errors: as of `check_can_ask`."""
    check_can_ask(endpoint)
    from openai import AsyncOpenAI

    key = key_of(endpoint)
    async with AsyncOpenAI(
        base_url=endpoint.url,
        api_key=key or "none",  # the library insists on one
        timeout=endpoint.timeout_seconds,
        max_retries=0,  # ours count nonsense too, and can be ended
        http_client=bounded_client(),
    ) as library:
        yield EndpointClient(endpoint, library, key, drawn)


def _fields(endpoint: EndpointConfig, drawn: ServedResponse) -> dict[str, Any]:
    """The fields of a request that shape its answer.

    top_p is sent although 1 is the API's default: servers take theirs from the model's folder.
    """
    return {
        "temperature": drawn.temperature,
        "top_p": 1.0,
        endpoint.length_field: drawn.max_tokens,
        **endpoint.body,
    }


def maker(endpoint: EndpointConfig, drawn: ServedResponse) -> dict[str, Setting]:
    """What answers depend on, for a manifest; a seed that is not sent shapes nothing."""
    told: dict[str, Setting] = {
        name: value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
        for name, value in _fields(endpoint, drawn).items()
    }
    return {
        "url": endpoint.url.rstrip("/"),
        "model": endpoint.model,
        "api": endpoint.api,
        "seed": drawn.seed if endpoint.send_seed else None,
        **{f"request.{name}": value for name, value in told.items()},
    }


def _answer(reply: Any, *, chat: bool) -> Answer:
    """Errors: UnusableError, which says what is missing."""
    if not isinstance(reply, Mapping):
        raise UnusableError(f"the answer is no JSON object but {str(reply)[:40]!r}")
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, Mapping):
        raise UnusableError("the answer has no choices")
    message = first.get("message") if chat else {"content": first.get("text")}
    message = message if isinstance(message, Mapping) else {}
    text = message.get("content")
    if message.get("reasoning_content") or message.get("reasoning"):
        raise UnusableError(
            "the server keeps reasoning apart, so the text is not what the model wrote after this "
            "prompt (turn it off, as with body: {chat_template_kwargs: {enable_thinking: false}})"
        )
    reason = first.get("finish_reason")
    if reason not in ("stop", "length"):
        raise UnusableError(f"it ended by {reason!r}, neither by 'stop' nor by 'length'")
    if not isinstance(text, str):
        raise UnusableError("the answer's choice has no text")
    if not text:
        raise UnusableError("the answer is empty")
    usage = reply.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    names = (reply.get("model"), reply.get("system_fingerprint"))
    return Answer(
        _whole_characters(text),
        reason == "stop",
        _count(counts.get("completion_tokens")),
        _whole_characters(" ".join(name for name in names if isinstance(name, str))),
        _count(counts.get("prompt_tokens")),
    )


def as_sent(question: Question) -> Any:
    """The content of a question as the API has it: arguments of tool calls are JSON in a string."""
    if isinstance(question.content, str):
        return question.content
    return [_with_written_arguments(message) for message in question.content]


def _with_written_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = []
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        arguments = function.get("arguments", {})
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
        frame = call if "function" in call else {"type": "function"}
        calls.append({**frame, "function": {**function, "arguments": written}})
    return {**message, **({"tool_calls": calls} if calls else {})}


def _whole_characters(text: str) -> str:
    """Half a character, as JSON can spell it, becomes what servers make of bytes that lack some."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None


def _location(error: APIStatusError) -> str:
    """Scheme and host of where a redirect points; its path may hold anything."""
    parts = urlsplit(str(error.response.headers.get("location", "")))
    return f"{parts.scheme}://{parts.netloc}"[:_SHOWN] if parts.netloc else "another path"


def _root(error: BaseException) -> BaseException:
    """What lies behind the library's `Connection error.`; its text may name an address."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
