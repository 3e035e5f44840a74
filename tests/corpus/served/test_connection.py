from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from distillspec.corpus.served.answers import Answer, ReceivedAnswers
from distillspec.corpus.served.connection import MOST_BYTES
from distillspec.corpus.served.endpoint import ServedResponse, connected
from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.served.retry import UnusableError
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.errors import DistillSpecError
from tests.misbehaving import Misbehaving, Reply, endless, good, misbehaving, raw, status

PROMPT = "a private prompt"


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with misbehaving(repeat(good())) as started:
        yield started


def asked(server: Misbehaving, reply: Reply) -> Answer:
    server.replies = repeat(reply)

    async def run() -> Answer:
        endpoint = server.endpoint(timeout_seconds=20.0)
        async with connected(endpoint, ServedResponse(1.0, 12, 3)) as client:
            return await client.answer(ApiRequest("k", PROMPT), 0)

    return asyncio.run(run())


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_prompt_and_no_key_follow_a_redirect(server: Misbehaving, code: int) -> None:
    with misbehaving(repeat(good())) as elsewhere:
        location = f"{elsewhere.url}/stolen?{'x' * 500}"
        with pytest.raises(DistillSpecError, match=f"status {code}") as caught:
            asked(server, status(code, location=location))
        assert elsewhere.requests == []
    assert len(server.requests) == 1
    assert f"names {elsewhere.url.removesuffix('/v1')})" in caught.value.fix


def test_a_redirect_within_the_server_is_not_followed_either(server: Misbehaving) -> None:
    with pytest.raises(DistillSpecError, match="status 307") as caught:
        asked(server, status(307, location="/v1/completions"))
    assert len(server.requests) == 1
    assert "names another path" in caught.value.fix


def test_a_body_without_end_is_read_up_to_the_bound(server: Misbehaving) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UnusableError, match="more than 4 MiB"):
            asked(server, endless)
        assert tracemalloc.get_traced_memory()[1] < 4 * MOST_BYTES
    finally:
        tracemalloc.stop()


def test_an_error_without_end_is_read_up_to_the_bound(server: Misbehaving) -> None:
    with pytest.raises(UnusableError, match="more than 4 MiB"):
        asked(server, status(400, {"error": {"message": "x" * (MOST_BYTES + 1)}}))


def test_a_compressed_answer_is_not_unpacked(server: Misbehaving) -> None:
    def bomb(handler, body) -> None:  # type: ignore[no-untyped-def]
        handler.send(200, gzip.compress(b" " * 2**20), content_encoding="gzip")

    with pytest.raises(UnusableError, match="compressed"):
        asked(server, bomb)
    assert server.headers[0]["accept-encoding"] == "identity"


def test_an_answer_nested_without_end_is_no_answer(server: Misbehaving) -> None:
    with pytest.raises(UnusableError, match="not JSON"):
        asked(server, raw(b"[" * 100_000))


def test_a_long_answer_within_the_bound_is_taken(server: Misbehaving) -> None:
    assert len(asked(server, good("x" * 2**20)).text) == 2**20


def test_odd_counts_and_names_of_a_server_are_stored_and_read_again(
    server: Misbehaving, tmp_path: Path
) -> None:
    usage = {"completion_tokens": True, "prompt_tokens": 10**400}
    result = asked(server, good("x", usage=usage, system_fingerprint="f\ud800"))
    assert (result.tokens, result.prompt_tokens) == (None, None)
    question = ApiRequest("k", PROMPT)
    store = ReceivedAnswers(StoreFolder(tmp_path, "t", ""), {"a": 1})
    with store.writer(0) as writer:
        writer.answer(question, result)
    assert store.settled([question]) == {"k"}
