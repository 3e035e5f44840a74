"""The HTTP client for an endpoint: it follows no redirect and bounds the size of an answer.

Prompts are private, so the client sends them to no other address. Memory is finite, so it reads a
limited number of bytes. `endpoint.py` bounds the time of an answer.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from distillspec.corpus.served.retry import UnusableError

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient

MOST_BYTES = 4 * 2**20  # of an answer; 128,000 tokens of English are about 0.6 MiB


def bounded_client() -> DefaultAsyncHttpxClient:
    """A client of the HTTP library that `openai` uses, for one endpoint.

    The client raises UnusableError, as the cause of the library's error, for an answer of more than
    MOST_BYTES. It does so for a compressed answer too, whose unpacked size has no bound.
    """
    from openai import DefaultAsyncHttpxClient

    # httpx or its successor, depending on the version of openai.
    library = next(c for c in DefaultAsyncHttpxClient.__mro__ if c.__name__ == "AsyncClient")
    stream_class = importlib.import_module(library.__module__.partition(".")[0]).AsyncByteStream
    bounded = _bounded(stream_class)

    async def bound(response: Any) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise UnusableError(f"the answer is compressed ({encoding}), which was not asked for")
        response.stream = bounded(response.stream)

    return DefaultAsyncHttpxClient(
        follow_redirects=False,
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [bound]},
    )


def _bounded(stream_class: Any) -> Any:
    class Bounded(stream_class):  # type: ignore[misc]
        """A body that raises an error after MOST_BYTES."""

        def __init__(self, body: Any) -> None:
            self._body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in self._body:
                size += len(part)
                if size > MOST_BYTES:
                    raise UnusableError(f"the answer has more than {MOST_BYTES // 2**20} MiB")
                yield part

        async def aclose(self) -> None:
            await self._body.aclose()

    return Bounded
