"""Retries of requests that failed for a passing reason, with growing, randomised waits."""

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
    """A try that failed, while another try may succeed."""

    def __init__(self, why: str, *, wait: float | None = None) -> None:
        """Keep the reason.

        Args:
            why: What went wrong, for the user.
            wait: Seconds that the server asks to wait, if it does.
        """
        super().__init__(why)
        self.why = why
        self.wait = wait


class UnreachableError(TransientError):
    """The server did not answer, or answered that it cannot at the moment."""


class UnusableError(TransientError):
    """The server answered with something that is not a usable response."""


class RetryPolicy:
    """The number of retries and the waits between them, shared by all requests to one server.

    Where the server asks to wait, all requests wait: the next one would be refused too.

    Attributes:
        failed: Tries that have failed so far.
    """

    def __init__(self, retries: int, *, first_wait: float = _FIRST_WAIT) -> None:
        """Set the bounds.

        Args:
            retries: Tries after the first one.
            first_wait: Seconds after the first failure; each further wait doubles it.
        """
        self._retries, self._first_wait = retries, first_wait
        self._not_before = 0.0  # on the clock of time.monotonic
        self._end = asyncio.Event()
        self.failed = 0

    def end(self) -> None:
        """Stop all retries; requests under way may still complete."""
        self._end.set()

    @property
    def ended(self) -> bool:
        return self._end.is_set()

    async def try_again(self, attempt: Callable[[int], Awaitable[_Result]]) -> _Result:
        """Call `attempt(n)` for n = 0, 1, ... until one does not raise TransientError.

        Raises:
            TransientError: The last one, when all tries have failed or `end` was called.
        """
        number = 0
        while True:
            # Another request may have been asked to wait.
            await self._pause(self._not_before - time.monotonic())
            try:
                return await attempt(number)
            except TransientError as fault:
                self.failed += 1
                if number >= self._retries or self.ended:
                    raise
                # The server's wait holds for all requests, our own only for this one.
                if fault.wait is not None:
                    until = time.monotonic() + fault.wait
                    self._not_before = max(self._not_before, until)
                await self._pause(fault.wait or self._wait(number))
                if self.ended:
                    raise
            number += 1

    async def _pause(self, seconds: float) -> None:
        """Wait some seconds, or until `end` is called."""
        if seconds > 0.0 and not self.ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), seconds)

    def _wait(self, number: int) -> float:
        """Seconds to wait after try `number`.

        A random factor from 0.5 to 1 keeps requests that failed together from returning together.
        """
        return min(_LONGEST_WAIT, self._first_wait * 2.0**number) * random.uniform(0.5, 1.0)


def asked_wait(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or a date; None without either."""
    if header is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    parsed = email.utils.parsedate_tz(header)
    return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())
