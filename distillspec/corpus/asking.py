"""All questions to an endpoint: so many at a time, what comes is kept, what fails is bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distillspec.corpus.endpoint import Drawn, EndpointClient, connected
from distillspec.corpus.question import Question
from distillspec.corpus.received import Answer, ReceivedAnswers, Writer
from distillspec.corpus.retrying import Patience, TransientError, UnreachableError, UnusableError
from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import Endpoint

_WITHOUT_ANY_ANSWER = 3  # questions given up before the first usable answer: it is the server


class Progress(NamedTuple):
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
    endpoint: Endpoint,
    drawn: Drawn,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Ask those of process `rank`'s questions that are not settled yet, and store what comes.

    Process `rank` of `world` takes every world-th question. One that is given up for unusable
    answers is left unanswered and stored as such once all others are settled, so that it is not
    asked again; more than `endpoint.most_unanswered` of them are an error, and so is a server that
    cannot be reached. Then nothing new is asked; what is under way still comes in and is kept.

    Errors: DistillSpecError, from all of these and from what the server refuses.
    """
    mine = list(questions)[rank::world]
    settled = store.settled(mine)
    waiting = [question for question in mine if question.key not in settled]
    if progress is not None:
        progress(Progress(len(settled), len(mine), 0))
    if not waiting:
        return

    async def ask(writer: Writer) -> None:
        async with connected(endpoint, drawn) as client:
            work = _Work(client, endpoint, writer, waiting, len(mine), progress)
            await work.done_by(max(1, endpoint.concurrency // world))

    with store.writer(rank) as writer:
        asyncio.run(ask(writer))


class Trial(NamedTuple):
    """Two answers to one question, and the seconds that both together took."""

    answers: tuple[Answer, Answer]
    seconds: float


def try_out(asked: Sequence[Question], endpoint: Endpoint, drawn: Drawn) -> list[Trial]:
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
    client: EndpointClient, endpoint: Endpoint, question: Question, number: int
) -> Answer:
    """The `number`-th answer to a question, whose seeds are others than those of the next."""

    async def attempt(tried: int) -> Answer:
        return await client.answer(question, number + 2 * tried)

    try:
        return await Patience(endpoint.retries).try_again(attempt)
    except TransientError as fault:
        raise _no_answer(endpoint, fault) from fault


class _Work:
    """The questions of one process on their way."""

    def __init__(
        self,
        client: EndpointClient,
        endpoint: Endpoint,
        writer: Writer,
        waiting: Sequence[Question],
        total: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._client, self._endpoint, self._writer = client, endpoint, writer
        self._waiting = iter(waiting)
        self._total, self._left = total, len(waiting)
        self._progress = progress
        self._patience = Patience(endpoint.retries)
        self._answered = 0
        self._unanswered: list[tuple[Question, str]] = []
        self._error: Exception | None = None

    async def done_by(self, workers: int) -> None:
        await asyncio.gather(*(self._worker() for _ in range(workers)))
        if self._error is not None:
            raise self._error
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
        async def attempt(number: int) -> Answer:
            return await self._client.answer(question, number)

        try:
            answer = await self._patience.try_again(attempt)
        except UnreachableError as fault:
            raise _no_answer(self._endpoint, fault) from fault
        except UnusableError as fault:
            self._unanswered.append((question, fault.why))
            self._check_unanswered(fault)
        else:
            self._writer.answer(question, answer)
            self._answered += 1
        self._left -= 1
        if self._progress is not None:
            settled = self._total - self._left
            self._progress(Progress(settled, self._total, self._patience.failed))

    def _check_unanswered(self, fault: UnusableError) -> None:
        allowed = int(self._endpoint.most_unanswered * self._total)
        given_up = len(self._unanswered)
        hopeless = not self._answered and given_up >= _WITHOUT_ANY_ANSWER
        if given_up > allowed or hopeless:
            raise DistillSpecError(
                f"{given_up} of {self._total} prompts have got no usable answer in "
                f"{_tries(self._endpoint)} each; of the last: {fault.why}",
                where=f"pair.endpoint: {self._endpoint.url}",
                mend="look at what the server answers; what was received is kept, and the same "
                "command goes on; pair.endpoint.most_unanswered "
                f"({self._endpoint.most_unanswered:g}) says how many may stay unanswered",
            )


def _no_answer(endpoint: Endpoint, fault: TransientError) -> DistillSpecError:
    return DistillSpecError(
        f"the endpoint gives no answer in {_tries(endpoint)}; the last: {fault.why}",
        where=f"pair.endpoint: {endpoint.url}",
        mend="see that the server runs, has this address and is not overloaded "
        "(pair.endpoint.concurrency, timeout_seconds); what was received is kept, and the same "
        "command goes on",
    )


def _tries(endpoint: Endpoint) -> str:
    count = endpoint.retries + 1
    return "one try" if count == 1 else f"{count} tries"
