"""Workers that send a process's questions to an endpoint and store the answers as they arrive.

The recipe bounds how many requests run at a time and how many questions may stay unanswered.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distillspec.corpus.served.answers import Answer, AnswerWriter, ReceivedAnswers
from distillspec.corpus.served.endpoint import (
    EndpointClient,
    RefusedRequestError,
    ServedResponse,
    connected,
    place,
)
from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.served.retry import (
    RetryPolicy,
    TransientError,
    UnreachableError,
    UnusableError,
)
from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import EndpointConfig

_WITHOUT_ANY_ANSWER = 3  # questions given up without one usable answer: the server is at fault


class RequestProgress(NamedTuple):
    """Progress of this process.

    Attributes:
        settled: Questions that are answered or given up.
        total: Questions of this process.
        failed: Tries that have failed so far.
    """

    settled: int
    total: int
    failed: int

    def failures(self) -> str:
        """The failed tries in words; empty without."""
        return f"{self.failed} failed tries" if self.failed else ""


def ask_missing(
    store: ReceivedAnswers,
    questions: Sequence[ApiRequest],
    endpoint: EndpointConfig,
    drawn: ServedResponse,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[RequestProgress], None] | None = None,
) -> None:
    """Send the questions of process `rank` that are not settled yet, and store the answers.

    Process `rank` of `world` takes every world-th question. A question is given up if it gets no
    usable answer, or is refused or fails while the server answers other questions. It is stored as
    given up once all other questions are settled, so that no later run sends it again. After an
    error no further question is sent; answers to requests under way are still stored.

    Args:
        store: Receives the answers.
        questions: Those of all processes.
        endpoint: The server and its limits.
        drawn: How answers are sampled.
        rank: Number of this process.
        world: Number of processes.
        progress: Called after each question.

    Raises:
        DistillSpecError: The server refuses a request or answers nothing, or the questions given up
            exceed `endpoint.max_unanswered` of all questions, earlier runs included.
    """
    own = list(questions)[rank::world]
    settled, given_up = store.settled(questions), store.unanswered(questions)
    waiting = [question for question in own if question.key not in settled]
    if progress is not None:
        progress(RequestProgress(len(own) - len(waiting), len(own), 0))
    if not waiting:
        return
    # A question with an answer can be sent again, to tell a bad prompt from a dead server.
    answered = next((q for q in questions if q.key in settled - given_up), None)
    asked = _Asked(questions, len(own), waiting, answered, len(given_up))

    async def ask(writer: AnswerWriter) -> None:
        async with connected(endpoint, drawn) as client:
            pool = _Pool(client, endpoint, store, writer, asked, progress)
            await pool.run(max(1, endpoint.concurrency // world))

    with store.writer(rank) as writer:
        asyncio.run(ask(writer))


class Trial(NamedTuple):
    """Two answers to the same question, and the seconds that both took together."""

    answers: tuple[Answer, Answer]
    seconds: float


def ask_twice(
    asked: Sequence[ApiRequest], endpoint: EndpointConfig, drawn: ServedResponse
) -> list[Trial]:
    """Send each question twice, one request at a time, and store nothing.

    Raises:
        DistillSpecError: The server refuses a request or does not answer.
    """

    async def ask() -> list[Trial]:
        trials = []
        async with connected(endpoint, drawn) as client:
            for question in asked:
                started = time.perf_counter()
                first, second = [await _alone(client, endpoint, question, n) for n in (0, 1)]
                trials.append(Trial((first, second), time.perf_counter() - started))
        return trials

    return asyncio.run(ask())


async def _alone(
    client: EndpointClient, endpoint: EndpointConfig, question: ApiRequest, number: int
) -> Answer:
    """Answer 0 or 1 to a question; the tries for the two use different seeds."""

    async def attempt(tried: int) -> Answer:
        return await client.answer(question, number + 2 * tried)

    try:
        return await RetryPolicy(endpoint.retries).try_again(attempt)
    except TransientError as fault:
        raise _no_answer(endpoint, question, fault) from fault


class _Asked(NamedTuple):
    """What a process has to send.

    Attributes:
        questions: Those of all processes.
        own: Number of questions of this process.
        waiting: Questions of this process that are not settled.
        answered: A question that the server has answered before.
        given_up: Number of questions that were given up before.
    """

    questions: Sequence[ApiRequest]
    own: int
    waiting: Sequence[ApiRequest]
    answered: ApiRequest | None
    given_up: int


class _Pool:
    """Workers that share the questions of one process."""

    def __init__(
        self,
        client: EndpointClient,
        endpoint: EndpointConfig,
        store: ReceivedAnswers,
        writer: AnswerWriter,
        asked: _Asked,
        progress: Callable[[RequestProgress], None] | None,
    ) -> None:
        self._client, self._endpoint = client, endpoint
        self._store, self._writer = store, writer
        self._questions, self._total = asked.questions, asked.own
        self._waiting, self._left = iter(asked.waiting), len(asked.waiting)
        self._progress = progress
        self._patience = RetryPolicy(endpoint.retries)
        self._answered = asked.answered
        self._answers = 0  # of this call
        self._given_up_before = asked.given_up
        self._unanswered: list[tuple[ApiRequest, str]] = []
        self._error: Exception | None = None

    async def run(self, workers: int) -> None:
        await asyncio.gather(*(self._worker() for _ in range(workers)))
        if self._error is not None:
            raise self._error
        if self._unanswered:  # other processes may have given up questions meanwhile
            self._given_up_before = len(self._store.unanswered(self._questions))
            self._check_unanswered()
        for question, why in self._unanswered:
            self._writer.unanswered(question, why)

    async def _worker(self) -> None:
        # All workers share one iterator, so each question is taken once.
        for question in self._waiting:
            try:
                await self._settle(question)
            except Exception as error:
                self._error = self._error or error
                self._patience.end()
            if self._patience.ended:
                return

    async def _settle(self, question: ApiRequest) -> None:
        """Store the answer, or give the question up where the server answers other questions."""
        before = 0

        async def attempt(number: int) -> Answer:
            nonlocal before
            # Answers that arrive during the last try show that the server works.
            before = self._answers
            return await self._client.answer(question, number)

        try:
            answer = await self._patience.try_again(attempt)
        except UnreachableError as fault:
            # The server is down or overloaded, unless it answers others meanwhile.
            if not await self._answers_others(before):
                raise _no_answer(self._endpoint, question, fault) from fault
            self._give_up(question, fault.why)
        except RefusedRequestError as fault:
            # Any other answer shows that the server takes such requests.
            if not await self._answers_others():
                raise
            self._give_up(question, fault.what)
        except UnusableError as fault:
            self._give_up(question, fault.why)
            # A single bad answer proves nothing; several without any good one do.
            hopeless = len(self._unanswered) >= _WITHOUT_ANY_ANSWER
            if hopeless and not await self._answers_others():
                raise self._too_many() from fault
        else:
            self._writer.answer(question, answer)
            self._answered = question
            self._answers += 1
        self._left -= 1
        if self._progress is not None:
            settled = self._total - self._left
            self._progress(RequestProgress(settled, self._total, self._patience.failed))

    async def _answers_others(self, before: int = 0) -> bool:
        """Whether the server answers other questions, so that the prompt is at fault.

        It does if it has given more than `before` answers in this call, or if it answers again a
        question that it has answered before.
        """
        if self._answers > before:
            return True
        if self._answered is None or self._patience.ended:
            return False
        try:
            await self._client.answer(self._answered, 0)
        except (TransientError, DistillSpecError):
            return False
        self._answers += 1
        return True

    def _give_up(self, question: ApiRequest, why: str) -> None:
        self._unanswered.append((question, why))
        self._check_unanswered()

    def _check_unanswered(self) -> None:
        share = self._endpoint.max_unanswered * len(self._questions)
        if self._given_up > math.ceil(round(share, 9)):  # 0.07 * 100 is a little more than 7
            raise self._too_many()

    @property
    def _given_up(self) -> int:
        return self._given_up_before + len(self._unanswered)

    def _too_many(self) -> DistillSpecError:
        question, why = self._unanswered[-1]
        return DistillSpecError(
            f"{self._given_up} of {len(self._questions)} prompts have no usable answer; the last "
            f"reason: {why}",
            where=place(self._endpoint, question),
            fix="check what the server answers, then give the same command again: it keeps the "
            "answers received. To allow more unanswered prompts, raise "
            f"pair.endpoint.max_unanswered ({self._endpoint.max_unanswered:g})",
        )


def _no_answer(
    endpoint: EndpointConfig, question: ApiRequest, fault: TransientError
) -> DistillSpecError:
    return DistillSpecError(
        f"the endpoint gives no answer in {_tries(endpoint)}; the last reason: {fault.why}",
        where=place(endpoint, question),
        fix="check that the server runs, has this address and is not overloaded "
        "(pair.endpoint.concurrency, timeout_seconds), then give the same command again: it keeps "
        "the answers received",
    )


def _tries(endpoint: EndpointConfig) -> str:
    count = endpoint.retries + 1
    return "one try" if count == 1 else f"{count} tries"
