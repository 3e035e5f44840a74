"""One request to an OpenAI-compatible API, and the errors it may end in.

The client library handles HTTP. This module checks each answer, since servers differ.
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
from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.served.retry import UnreachableError, UnusableError, asked_wait
from distillspec.corpus.stores.store_folder import Setting
from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import EndpointConfig, check_can_ask, key_of

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_TRIED_AGAIN = {408, 409, 425, 429}  # and all from 500 on
_OF_THE_PROMPT = {400, 413, 422}  # the prompt may be too long, or filtered
_LONGEST_WAIT = 300.0  # seconds; for a longer wait the user starts the command again
_SHOWN = 300  # characters of a server's message


class ServedResponse(NamedTuple):
    """How answers are sampled: from the entire distribution, without top-k or nucleus.

    Attributes:
        temperature: Sampling temperature.
        max_tokens: Length limit of an answer.
        seed: The recipe's seed, from which each question and try derives another.
    """

    temperature: float
    max_tokens: int
    seed: int


class RefusedRequestError(DistillSpecError):
    """A refusal that another try cannot change, while the server may answer the next prompt."""


class EndpointClient:
    """Sends questions to the endpoint of a recipe."""

    def __init__(
        self, endpoint: EndpointConfig, library: AsyncOpenAI, key: str | None, drawn: ServedResponse
    ) -> None:
        self._endpoint, self._library, self._key = endpoint, library, key
        self._fields = _fields(endpoint, drawn)
        self._seed = drawn.seed

    async def answer(self, question: ApiRequest, attempt: int) -> Answer:
        """The target's answer to a question.

        Args:
            question: The prompt to send.
            attempt: Number of the try, for its seed.

        Raises:
            UnreachableError: The server does not answer.
            UnusableError: The server's answer cannot be used.
            RefusedRequestError: The server refuses the request, maybe due to the prompt.
            DistillSpecError: The server refuses all such requests.
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
            async with asyncio.timeout(endpoint.timeout_seconds):  # also for a slow stream of bytes
                reply = await self._library.post(path, cast_to=object, body=body)
        # APITimeoutError is an APIConnectionError, so it comes first.
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

    def _refusal(self, error: APIStatusError, question: ApiRequest) -> Exception:
        status, message = error.status_code, self._message(error)
        # 1. The server is busy or fails: another try may succeed.
        if status in _TRIED_AGAIN or status >= 500:
            wait = asked_wait(error.response.headers.get("retry-after"))
            if wait is None or wait <= _LONGEST_WAIT:
                return UnreachableError(f"status {status}{message}", wait=wait)
            fix = f"start the same command again in {wait:,.0f} s, as the server requests"
        # 2. The request must change, and the status says how.
        elif 300 <= status < 400:
            fix = (
                "prompts are not sent to the address of a redirect: if you trust it, set "
                f"pair.endpoint.url (the server names {_location(error)})"
            )
        elif status in (401, 403):
            variable = self._endpoint.key_variable
            fix = (
                f"put a key that this server accepts into the environment variable {variable}"
                if variable
                else "set pair.endpoint.key_variable to the environment variable that holds the key"
            )
        elif status == 404:
            fix = (
                "correct pair.endpoint.url (it usually ends in /v1), pair.endpoint.model, or "
                "pair.endpoint.api"
            )
        else:
            fix = (
                "change what the server names: pair.endpoint.{model, send_seed, length_field, "
                "body}, data.max_prompt_tokens, data.max_response_tokens"
            )
        # A status in `_OF_THE_PROMPT` may be due to this prompt. Others concern every request.
        kind = RefusedRequestError if status in _OF_THE_PROMPT else DistillSpecError
        return kind(
            f"the endpoint refuses: status {status}{message}",
            where=place(self._endpoint, question),
            fix=fix,
        )

    def _message(self, error: APIStatusError) -> str:
        """The server's message in one line, with the key masked."""
        body = error.body
        if isinstance(body, Mapping):
            body = body.get("message") or body.get("detail") or body.get("error") or body
        text = " ".join(str(body or "").split())
        if self._key:
            text = text.replace(self._key, "<key>")
        return f": {text[:_SHOWN]}" if text else ""


def place(endpoint: EndpointConfig, question: ApiRequest) -> str:
    """Endpoint and prompt, for the `where` of an error: the fault may be due to the prompt."""
    return f"pair.endpoint: {endpoint.url}, asked with prompt {question.key}"


@asynccontextmanager
async def connected(
    endpoint: EndpointConfig, drawn: ServedResponse
) -> AsyncIterator[EndpointClient]:
    """A client with its connections.

    Raises:
        DistillSpecError: The `openai` package or the key is missing.
    """
    check_can_ask(endpoint)
    from openai import AsyncOpenAI

    key = key_of(endpoint)
    async with AsyncOpenAI(
        base_url=endpoint.url,
        api_key=key or "none",  # the library requires a key
        timeout=endpoint.timeout_seconds,
        max_retries=0,  # `RetryPolicy` also retries unusable answers, and can be ended
        http_client=bounded_client(),
    ) as library:
        yield EndpointClient(endpoint, library, key, drawn)


def _fields(endpoint: EndpointConfig, drawn: ServedResponse) -> dict[str, Any]:
    """The fields of a request that shape its answer.

    top_p is sent although 1 is the API's default: servers take a default from the model's folder.
    """
    return {
        "temperature": drawn.temperature,
        "top_p": 1.0,
        endpoint.length_field: drawn.max_tokens,
        **endpoint.body,
    }


def request_settings(endpoint: EndpointConfig, drawn: ServedResponse) -> dict[str, Setting]:
    """All that answers depend on, for a manifest. A seed that is not sent has no effect."""
    fields: dict[str, Setting] = {
        name: value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
        for name, value in _fields(endpoint, drawn).items()
    }
    return {
        "url": endpoint.url.rstrip("/"),
        "model": endpoint.model,
        "api": endpoint.api,
        "seed": drawn.seed if endpoint.send_seed else None,
        **{f"request.{name}": value for name, value in fields.items()},
    }


def _answer(reply: Any, *, chat: bool) -> Answer:
    """The answer in a reply; UnusableError names what is missing."""
    if not isinstance(reply, Mapping):
        raise UnusableError(f"the answer is not a JSON object: {str(reply)[:40]!r}")
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, Mapping):
        raise UnusableError("the answer has no choices")
    message = first.get("message") if chat else {"content": first.get("text")}
    message = message if isinstance(message, Mapping) else {}
    text = message.get("content")
    if message.get("reasoning_content") or message.get("reasoning"):
        raise UnusableError(
            "the server returns reasoning separately, so the text is not what the model wrote "
            "after this prompt (turn reasoning off, for example with body: "
            "{chat_template_kwargs: {enable_thinking: false}})"
        )
    reason = first.get("finish_reason")
    if reason not in ("stop", "length"):
        raise UnusableError(f"finish_reason is {reason!r}, neither 'stop' nor 'length'")
    if not isinstance(text, str):
        raise UnusableError("the first choice has no text")
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


def as_sent(question: ApiRequest) -> Any:
    """The content in the API's form, where the arguments of tool calls are JSON in a string."""
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
    """Replace half a surrogate pair, which JSON can spell, by U+FFFD as servers do."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None


def _location(error: APIStatusError) -> str:
    """Scheme and host of a redirect's address, without the path, which may hold anything."""
    parts = urlsplit(str(error.response.headers.get("location", "")))
    return f"{parts.scheme}://{parts.netloc}"[:_SHOWN] if parts.netloc else "another path"


def _root(error: BaseException) -> BaseException:
    """The first cause of the library's `Connection error.`, whose text may name an address."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
