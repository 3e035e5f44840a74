from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable

import pytest

from distillspec.corpus.served.retry import (
    RetryPolicy,
    TransientError,
    UnreachableError,
    UnusableError,
    asked_wait,
)


def failing(times: int, fault: Callable[[], TransientError], tried: list[float]):
    async def attempt(number: int) -> int:
        tried.append(time.monotonic())
        assert len(tried) == number + 1
        if number < times:
            raise fault()
        return number

    return attempt


def test_the_first_success_ends_the_trying_and_failures_are_counted() -> None:
    tried: list[float] = []

    async def run() -> tuple[int, int]:
        patience = RetryPolicy(5, first_wait=0.001)
        result = await patience.try_again(failing(3, lambda: UnusableError("no"), tried))
        return result, patience.failed

    assert asyncio.run(run()) == (3, 3)
    assert len(tried) == 4


def test_tries_are_bounded_and_the_last_fault_is_raised() -> None:
    tried: list[float] = []

    async def run() -> None:
        await RetryPolicy(2, first_wait=0.001).try_again(
            failing(9, lambda: UnreachableError(f"no {len(tried)}"), tried)
        )

    with pytest.raises(UnreachableError) as caught:
        asyncio.run(run())
    assert caught.value.why == "no 3"
    assert len(tried) == 3


def test_waits_grow_and_scatter() -> None:
    patience = RetryPolicy(9, first_wait=1.0)
    for number, low, high in ((0, 0.5, 1.0), (3, 4.0, 8.0), (15, 30.0, 60.0)):
        waits = {patience._wait(number) for _ in range(50)}
        assert len(waits) > 40
        assert low <= min(waits) <= max(waits) <= high


def test_where_the_server_asks_to_wait_everybody_waits() -> None:
    async def run() -> tuple[float, list[float]]:
        patience, started, others = RetryPolicy(1, first_wait=0.001), time.monotonic(), [0.0]

        async def other(number: int) -> int:
            others[0] = time.monotonic() - started
            return number

        first_tries: list[float] = []
        refused = patience.try_again(
            failing(1, lambda: UnreachableError("", wait=0.4), first_tries)
        )
        task = asyncio.create_task(refused)
        await asyncio.sleep(0.05)
        await patience.try_again(other)
        await task
        return first_tries[1] - started, others

    again, others = asyncio.run(run())
    assert again >= 0.39
    assert others[0] >= 0.39


def test_after_the_end_nobody_tries_again_and_waits_are_cut_short() -> None:
    tried: list[float] = []

    async def run() -> None:
        patience = RetryPolicy(9, first_wait=100.0)
        task = asyncio.create_task(
            patience.try_again(failing(9, lambda: UnreachableError("down"), tried))
        )
        await asyncio.sleep(0.05)
        patience.end()
        await task

    started = time.monotonic()
    with pytest.raises(UnreachableError, match="down"):
        asyncio.run(run())
    assert len(tried) == 1
    assert time.monotonic() - started < 20.0


def test_retry_after_is_a_number_or_a_date_or_nothing() -> None:
    assert asked_wait(None) is None
    assert asked_wait("soon") is None
    assert asked_wait("nan") is None
    assert asked_wait("inf") is None
    assert asked_wait("7") == 7.0
    assert asked_wait("-3") == 0.0
    date = email.utils.formatdate(time.time() + 100.0, usegmt=True)
    result = asked_wait(date)
    assert result is not None
    assert 90.0 < result <= 100.0
