from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest

from distillspec.corpus.served.answers import Answer
from distillspec.corpus.served.endpoint import ServedResponse, connected, request_settings
from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.served.retry import TransientError, UnreachableError, UnusableError
from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import EndpointConfig
from tests.misbehaving import (
    Misbehaving,
    Reply,
    broken_off,
    good,
    json_of,
    misbehaving,
    raw,
    slowly,
    status,
    trickling,
)
from tests.served import Served, free_port

KEY = "Xq7-very-secret"
TEXT = ApiRequest("k", "def f(x):\n")
CHAT = ApiRequest("k", ({"role": "user", "content": "x = 1\n"},))


def asked(
    endpoint: EndpointConfig, question: ApiRequest = TEXT, *, attempt: int = 0, **drawn: Any
) -> Answer:
    async def run() -> Answer:
        values = {"temperature": 1.0, "max_tokens": 12, "seed": 3, **drawn}
        async with connected(endpoint, ServedResponse(**values)) as client:
            return await client.answer(question, attempt)

    return asyncio.run(run())


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with misbehaving(repeat(good())) as result:
        yield result


def replying(server: Misbehaving, reply: Reply) -> EndpointConfig:
    server.replies = repeat(reply)
    return server.endpoint(timeout_seconds=5.0)


# --- a real server -------------------------------------------------------------------------------


def test_a_real_server_completes_a_text(served: Served) -> None:
    result = asked(EndpointConfig(url=served.url, model=served.model))
    assert result.text
    assert (result.ended, result.tokens) == (False, 12)
    assert served.model in result.maker


def test_a_real_server_answers_a_chat(served: Served) -> None:
    result = asked(EndpointConfig(url=served.url, model=served.model, api="chat"), CHAT)
    assert result.text
    assert result.tokens == 12


def test_a_real_server_takes_seed_and_temperature_and_draws_accordingly(served: Served) -> None:
    endpoint = EndpointConfig(url=served.url, model=served.model)
    first, again = asked(endpoint), asked(endpoint)
    assert first == again
    assert len({asked(endpoint, attempt=n).text for n in range(5)}) > 1
    cold = [asked(endpoint, attempt=n, temperature=1e-4).text for n in range(2)]
    assert cold[0] == cold[1]


def test_the_refusal_of_a_real_server_is_an_error_in_its_words(served: Served) -> None:
    with pytest.raises(DistillSpecError, match="status 400.*pinned to './nano'"):
        asked(EndpointConfig(url=served.url, model="another"))
    with pytest.raises(DistillSpecError, match=r"status 422.*Unexpected fields.*top_q"):
        asked(EndpointConfig(url=served.url, model=served.model, body={"top_q": 1}))
    with pytest.raises(DistillSpecError, match="status 404") as caught:
        asked(EndpointConfig(url=served.url.removesuffix("/v1"), model=served.model))
    assert "ends in /v1" in caught.value.fix


# --- what is sent --------------------------------------------------------------------------------


def test_a_request_holds_how_the_answer_is_sampled(server: Misbehaving) -> None:
    asked(server.endpoint(), temperature=0.7)
    (body,) = server.requests
    assert body.pop("seed") == TEXT.seed(3, 0)
    assert body == {
        "model": "m",
        "prompt": "def f(x):\n",
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 12,
    }


def test_servers_that_want_other_fields_get_them(server: Misbehaving) -> None:
    endpoint = server.endpoint(
        api="chat",
        send_seed=False,
        length_field="max_completion_tokens",
        body={"top_p": 0.9, "chat_template_kwargs": {"enable_thinking": False}},
    )
    asked(endpoint, CHAT)
    (body,) = server.requests
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "x = 1\n"}],
        "temperature": 1.0,
        "top_p": 0.9,
        "max_completion_tokens": 12,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_tools_go_with_a_chat_and_arguments_of_calls_as_a_string(server: Misbehaving) -> None:
    tool = {"type": "function", "function": {"name": "stock"}}
    ask = {"role": "user", "content": "how many?"}
    answer = {"role": "tool", "content": "4"}
    framed = {"type": "function", "function": {"name": "stock", "arguments": '{"item": "bolt"}'}}
    for call in (
        framed,
        {"type": "function", "function": {"name": "stock", "arguments": {"item": "bolt"}}},
        {"name": "stock", "arguments": {"item": "bolt"}},
    ):
        call_message = {"role": "assistant", "tool_calls": [call]}
        asked(
            server.endpoint(api="chat"), ApiRequest("k", (ask, call_message, answer), tools=(tool,))
        )
        body = server.requests[-1]
        assert body["tools"] == [tool]
        assert body["messages"] == [ask, {"role": "assistant", "tool_calls": [framed]}, answer]
    asked(server.endpoint(api="chat"), CHAT)
    assert "tools" not in server.requests[-1]


def test_half_a_character_in_an_answer_is_what_servers_make_of_broken_bytes(
    server: Misbehaving,
) -> None:
    for text, read in (
        ("ab\ud83d", "ab\ufffd"),
        ("\ude42b", "\ufffdb"),
        ("\U0001f642", "\U0001f642"),
    ):
        assert asked(replying(server, good(text))).text == read


def test_the_key_is_sent_and_never_printed(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THE_KEY", f"{KEY}\n")  # as files have it
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, name)
    endpoint = server.endpoint(key_variable="THE_KEY")
    asked(endpoint)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    server.replies = repeat(status(401, {"error": {"message": f"wrong key {KEY}, dear user"}}))
    with pytest.raises(DistillSpecError, match="wrong key <key>, dear user") as caught:
        asked(endpoint)
    assert "THE_KEY" in caught.value.fix
    output = (
        caplog.text
        + str(caught.value)
        + repr(request_settings(endpoint, ServedResponse(1.0, 12, 3)))
    )
    assert "openai" in caplog.text
    assert KEY not in output


def test_a_missing_key_is_an_error_before_any_request(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    with pytest.raises(DistillSpecError, match="THE_KEY is not set"):
        asked(server.endpoint(key_variable="THE_KEY"))
    assert not server.requests


def test_the_manifest_has_what_shapes_an_answer_and_nothing_else() -> None:
    endpoint = EndpointConfig(url="http://h/v1/", model="m", concurrency=3, body={"min_p": [0.1]})
    result = request_settings(endpoint, ServedResponse(0.5, 9, 4))
    assert result == {
        "url": "http://h/v1",
        "model": "m",
        "api": "completions",
        "seed": 4,
        "request.temperature": 0.5,
        "request.top_p": 1.0,
        "request.max_tokens": 9,
        "request.min_p": "[0.1]",
    }
    assert (
        request_settings(
            endpoint.model_copy(update={"send_seed": False}), ServedResponse(0.5, 9, 4)
        )["seed"]
        is None
    )


def test_hidden_reasoning_is_found_out(server: Misbehaving) -> None:
    """What follows it is not what the target writes right after the prompt."""
    message = {"content": "4", "reasoning_content": "two and two"}
    reply = json_of({"choices": [{"finish_reason": "stop", "message": message}]})
    endpoint = replying(server, reply).model_copy(update={"api": "chat"})
    with pytest.raises(UnusableError, match="reasoning"):
        asked(endpoint, CHAT)


# --- faults --------------------------------------------------------------------------------------


def test_an_answer_is_read_with_fields_added_or_left_out(server: Misbehaving) -> None:
    usage = {"completion_tokens": 5, "prompt_tokens": 7}
    more = {"usage": usage, "system_fingerprint": "fp", "foo": [1]}
    assert asked(replying(server, good("x", "stop", **more))) == Answer("x", True, 5, "m-1 fp", 7)
    bare = {"choices": [{"text": "x", "finish_reason": "length"}]}
    assert asked(replying(server, json_of(bare))) == Answer("x", False, None, "")
    as_text = raw(json.dumps(bare).encode(), "text/plain")
    with pytest.raises(UnusableError, match="not a JSON object"):
        asked(replying(server, as_text))


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (raw(b"<html>busy</html>", "text/html"), "not a JSON object: '<html>busy"),
        (raw(b'{"choices": [{"te'), "not JSON"),
        (raw(b""), "not JSON"),
        (json_of([1]), "not a JSON object"),
        (json_of({"choices": []}), "no choices"),
        (json_of({"choices": "many"}), "no choices"),
        (json_of({"error": "overloaded"}), "no choices"),
        (json_of({"choices": [{"finish_reason": "stop"}]}), "has no text"),
        (json_of({"choices": [{"text": 3, "finish_reason": "stop"}]}), "has no text"),
        (good("", "stop"), "is empty"),
        (good("x", "content_filter"), "'content_filter'"),
        (json_of({"choices": [{"text": "x"}]}), "finish_reason is None"),
    ],
)
def test_nonsense_is_no_answer(server: Misbehaving, reply: Reply, why: str) -> None:
    with pytest.raises(UnusableError) as caught:
        asked(replying(server, reply))
    assert why in caught.value.why


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "stop", "message": None},
        {"finish_reason": "stop", "message": {"content": None}},
        {"finish_reason": "stop", "text": "of the other API"},
    ],
)
def test_a_chat_without_a_message_is_no_answer(server: Misbehaving, choice: dict[str, Any]) -> None:
    endpoint = replying(server, json_of({"choices": [choice]})).model_copy(update={"api": "chat"})
    with pytest.raises(UnusableError, match="has no text"):
        asked(endpoint, CHAT)


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 529])
def test_what_may_pass_may_be_tried_again(server: Misbehaving, code: int) -> None:
    with pytest.raises(UnreachableError, match=f"status {code}: no") as caught:
        asked(replying(server, status(code)))
    assert caught.value.wait is None


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_what_will_not_pass_ends_at_once(server: Misbehaving, code: int) -> None:
    with pytest.raises(DistillSpecError, match=f"status {code}: no") as caught:
        asked(replying(server, status(code)))
    assert server.url in caught.value.where
    assert "pair.endpoint" in caught.value.fix
    assert len(server.requests) == 1


def test_a_wait_that_the_server_asks_for_is_passed_on_unless_it_is_too_long(
    server: Misbehaving,
) -> None:
    with pytest.raises(UnreachableError) as caught:
        asked(replying(server, status(429, retry_after="7")))
    assert caught.value.wait == 7.0
    with pytest.raises(DistillSpecError) as refused:
        asked(replying(server, status(429, retry_after="3600")))
    assert "in 3,600 s" in refused.value.fix


@pytest.mark.parametrize("reply", [slowly(2.0, good()), trickling], ids=["slow", "trickling"])
def test_patience_with_one_request_is_bounded(server: Misbehaving, reply: Reply) -> None:
    server.replies = repeat(reply)
    with pytest.raises(UnreachableError, match=r"no answer within 0.4 s"):
        asked(server.endpoint(timeout_seconds=0.4))


def test_a_connection_that_breaks_off_may_be_tried_again(server: Misbehaving) -> None:
    with pytest.raises(UnreachableError, match="no connection"):
        asked(replying(server, broken_off))


def test_a_server_that_is_down_may_be_tried_again() -> None:
    with pytest.raises(TransientError, match="no connection"):
        asked(EndpointConfig(url=f"http://127.0.0.1:{free_port()}/v1", model="m"))
