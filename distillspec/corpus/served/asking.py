"""All questions to an endpoint: so many at a time, what comes is kept, what fails is bounded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distillspec.corpus.served.endpoint import (
    EndpointClient,
    RefusedError,
    ServedResponse,
    connected,
    place,
)
from distillspec.corpus.served.question import Question
from distillspec.corpus.served.received import Answer, AnswerWriter, ReceivedAnswers
from distillspec.corpus.served.retrying import (
    Patience,
    TransientError,
    UnreachableError,
    UnusableError,
)
from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import EndpointConfig

_WITHOUT_ANY_ANSWER = 3  # questions given up before the first usable answer: it is the server


class RequestProgress(NamedTuple):
    """Of this process: questions that are settled, of how many; tries that failed so far."""

    settled: int
    total: int
    failed: int

    def words(self) -> str:
        failed = f", {self.failed} failed tries" if self.failed else ""
        return f"answers of the endpoint: {self.settled} of {self.total}{failed}"


def ask_missing(
    store: ReceivedAnswers,
    questions: Sequence[Question],
    endpoint: EndpointConfig,
    drawn: ServedResponse,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[RequestProgress], None] | None = None,
) -> None:
    """Ask those of process `rank`'s questions that are not settled yet, and store what comes.

    Process `rank` of `world` takes every world-th question. One that gets no usable answer, or that
    is refused or fails while the server answers others, is given up, and stored as such once all
    others are settled, so that it is not asked again. More than `endpoint.max_unanswered` of all
    processes' questions, those given up before among them, are an error, and so is a server that
    answers nothing. Then nothing new is asked; what is under way still comes in and is kept.

    Errors: DistillSpecError, from all of these and from what the server refuses.
    """
    mine = list(questions)[rank::world]
    settled, given_up = store.settled(questions), store.unanswered(questions)
    waiting = [question for question in mine if question.key not in settled]
    if progress is not None:
        progress(RequestProgress(len(mine) - len(waiting), len(mine), 0))
    if not waiting:
        return
    answered = next((q for q in questions if q.key in settled - given_up), None)
    asked = _Asked(questions, len(mine), waiting, answered, len(given_up))

    async def ask(writer: AnswerWriter) -> None:
        async with connected(endpoint, drawn) as client:
            work = _Work(client, endpoint, store, writer, asked, progress)
            await work.done_by(max(1, endpoint.concurrency // world))

    with store.writer(rank) as writer:
        asyncio.run(ask(writer))


class Trial(NamedTuple):
    """Two answers to one question, and the seconds that both together took."""

    answers: tuple[Answer, Answer]
    seconds: float


def try_out(
    asked: Sequence[Question], endpoint: EndpointConfig, drawn: ServedResponse
) -> list[Trial]:
    """Each question twice, one request at a time; nothing is stored. Errors: as of ask_missing."""

    async def ask() -> list[Trial]:
        found = []
        async with connected(endpoint, drawn) as client:
            for question in asked:
                started = time.perf_counter()
                one, other = [await _alone(client, endpoint, question, n) for n in (0, 1)]
                found.append(Trial((one, other), time.perf_counter() - started))
        return found

    return asyncio.run(ask())


async def _alone(
    client: EndpointClient, endpoint: EndpointConfig, question: Question, number: int
) -> Answer:
    """The `number`-th answer to a question, whose seeds are others than those of the next."""

    async def attempt(tried: int) -> Answer:
        return await client.answer(question, number + 2 * tried)

    try:
        return await Patience(endpoint.retries).try_again(attempt)
    except TransientError as fault:
        raise _no_answer(endpoint, question, fault) from fault


class _Asked(NamedTuple):
    """questions: of all processes. mine: how many are this one's, waiting: those of them that are
    not settled. answered: one that the server has answered before; given_up: how many it has not.
    """

    questions: Sequence[Question]
    mine: int
    waiting: Sequence[Question]
    answered: Question | None
    given_up: int


class _Work:
    """The questions of one process on their way."""

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
        self._questions, self._total = asked.questions, asked.mine
        self._waiting, self._left = iter(asked.waiting), len(asked.waiting)
        self._progress = progress
        self._patience = Patience(endpoint.retries)
        self._answered = asked.answered
        self._answers = 0  # of this call
        self._given_up_before = asked.given_up
        self._unanswered: list[tuple[Question, str]] = []
        self._error: Exception | None = None

    async def done_by(self, workers: int) -> None:
        await asyncio.gather(*(self._worker() for _ in range(workers)))
        if self._error is not None:
            raise self._error
        if self._unanswered:  # other processes may have given up theirs meanwhile
            self._given_up_before = len(self._store.unanswered(self._questions))
            self._check_unanswered()
        for question, why in self._unanswered:
            self._writer.unanswered(question, why)

    async def _worker(self) -> None:
        for question in self._waiting:
            try:
                await self._one(question)
            except Exception as error:
                self._error = self._error or error
                self._patience.end()
            if self._patience.ended:
                return

    async def _one(self, question: Question) -> None:
        before = 0

        async def attempt(number: int) -> Answer:
            nonlocal before
            before = self._answers
            return await self._client.answer(question, number)

        try:
            answer = await self._patience.try_again(attempt)
        except UnreachableError as fault:
            if not await self._answers_others(before):
                raise _no_answer(self._endpoint, question, fault) from fault
            self._give_up(question, fault.why)
        except RefusedError as fault:
            if not await self._answers_others():
                raise
            self._give_up(question, fault.what)
        except UnusableError as fault:
            self._give_up(question, fault.why)
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
        """Whether the server has given more than `before` answers in this call, or else answers
        again what it has answered: if so, a fault is the prompt's.
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

    def _give_up(self, question: Question, why: str) -> None:
        self._unanswered.append((question, why))
        self._check_unanswered()

    def _check_unanswered(self) -> None:
        share = self._endpoint.max_unanswered * len(self._questions)
        if self._given_up > math.ceil(round(share, 9)):  # 0.07 of 100 are a little more than 7
            raise self._too_many()

    @property
    def _given_up(self) -> int:
        return self._given_up_before + len(self._unanswered)

    def _too_many(self) -> DistillSpecError:
        question, why = self._unanswered[-1]
        return DistillSpecError(
            f"{self._given_up} of {len(self._questions)} prompts have got no usable answer; of the "
            f"last: {why}",
            where=place(self._endpoint, question),
            fix="look at what the server answers; what was received is kept, and the same "
            "command goes on; pair.endpoint.max_unanswered "
            f"({self._endpoint.max_unanswered:g}) says how many may stay unanswered",
        )


def _no_answer(
    endpoint: EndpointConfig, question: Question, fault: TransientError
) -> DistillSpecError:
    return DistillSpecError(
        f"the endpoint gives no answer in {_tries(endpoint)}; the last: {fault.why}",
        where=place(endpoint, question),
        fix="see that the server runs, has this address and is not overloaded "
        "(pair.endpoint.concurrency, timeout_seconds); what was received is kept, and the same "
        "command goes on",
    )


def _tries(endpoint: EndpointConfig) -> str:
    count = endpoint.retries + 1
    return "one try" if count == 1 else f"{count} tries"
