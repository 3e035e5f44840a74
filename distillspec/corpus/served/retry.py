"""Tries that fail in a way which another may not: bounded, with growing, scattered waits."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Result = TypeVar("_Result")

_FIRST_WAIT = 0.5  # seconds; doubled with every try
_LONGEST_WAIT = 60.0


class TransientError(Exception):
    """A try that failed, where another may not. wait: seconds that the server asks to wait, if it
    does.
    """

    def __init__(self, why: str, *, wait: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait


class UnreachableError(TransientError):
    """The server did not answer, or said that it cannot now."""


class UnusableError(TransientError):
    """The server did answer, with something that is no answer."""


class Patience:
    """How often and after what waits one tries again; shared by all requests to one server.

    Where the server asks to wait, all wait: the request that comes next would be refused too.
    """

    def __init__(self, retries: int, *, first_wait: float = _FIRST_WAIT) -> None:
        """retries: tries after the first. first_wait: seconds."""
        self._retries, self._first_wait = retries, first_wait
        self._not_before = 0.0  # on the clock of time.monotonic
        self._end = asyncio.Event()
        self.failed = 0  # tries so far

    def end(self) -> None:
        """Nobody tries again; what is under way may still come in."""
        self._end.set()

    @property
    def ended(self) -> bool:
        return self._end.is_set()

    async def try_again(self, attempt: Callable[[int], Awaitable[_Result]]) -> _Result:
        """`attempt(n)` for n = 0, 1, ... up to the first that does not raise TransientError.

        Errors: the last TransientError, when all tries have failed or the end has come.
        """
        number = 0
        while True:
            await self._pause(self._not_before - time.monotonic())
            try:
                return await attempt(number)
            except TransientError as fault:
                self.failed += 1
                if number >= self._retries or self.ended:
                    raise
                if fault.wait is not None:
                    until = time.monotonic() + fault.wait
                    self._not_before = max(self._not_before, until)
                await self._pause(fault.wait or self._wait(number))
                if self.ended:
                    raise
            number += 1

    async def _pause(self, seconds: float) -> None:
        """Seconds, or to the end."""
        if seconds > 0.0 and not self.ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), seconds)

    def _wait(self, number: int) -> float:
        """Seconds after try `number`: between half and the whole of the doubled first wait, so that
        requests which failed together do not come back together.
        """
        return min(_LONGEST_WAIT, self._first_wait * 2.0**number) * random.uniform(0.5, 1.0)


def asked_wait(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number or a date; None where it says none."""
    if header is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    parsed = email.utils.parsedate_tz(header)
    return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())
