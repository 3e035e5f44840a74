from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from distillspec.corpus.served.answers import Answer, ReceivedAnswers
from distillspec.corpus.served.endpoint import ServedResponse
from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.served.request_pool import RequestProgress, ask_missing, ask_twice
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import EndpointConfig
from tests.misbehaving import Misbehaving, Reply, broken_off, good, misbehaving, raw, slowly, status
from tests.served import Served, free_port

QUESTIONS = [ApiRequest(f"k{i}", f"text {i}") for i in range(8)]
KEYS = {question.key for question in QUESTIONS}
DRAWN = ServedResponse(temperature=1.0, max_tokens=8, seed=0)
EMPTY = good("", "stop")
ANSWER = Answer("x", True, None, "m-1")


@pytest.fixture
def store(tmp_path: Path) -> ReceivedAnswers:
    return ReceivedAnswers(StoreFolder(tmp_path, "target", ""), {"url": "u"})


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with misbehaving(repeat(good())) as rows:
        yield rows


def ask(store: ReceivedAnswers, endpoint: EndpointConfig, **more: Any) -> None:
    ask_missing(store, QUESTIONS, endpoint, DRAWN, **more)


def kept(store: ReceivedAnswers) -> dict[str, Any]:
    """The stored lines by their keys."""
    lines = [line for path in sorted(store.folder.glob("received-*.jsonl"))
             for line in path.read_text().splitlines()]  # fmt: skip
    rows = {row["key"]: row for row in map(json.loads, lines)}
    assert len(rows) == len(lines), "something was kept twice"
    return rows


def only_to(question: ApiRequest, reply: Reply) -> Reply:
    """`reply` to that question, and an answer to all others."""

    def chosen(handler: Any, body: dict[str, Any]) -> None:
        (reply if body["prompt"] == question.content else good())(handler, body)

    return chosen


def replies(*first: Reply) -> Iterator[Reply]:
    return chain(first, repeat(good()))


# --- all goes well -------------------------------------------------------------------------------


def test_every_question_gets_its_own_answer(store: ReceivedAnswers, server: Misbehaving) -> None:
    reports: list[RequestProgress] = []
    ask(store, server.endpoint(concurrency=3), progress=reports.append)
    assert {key: row["answer"]["text"] for key, row in kept(store).items()} == {
        q.key: f"after {q.content}" for q in QUESTIONS
    }
    assert [(p.settled, p.total) for p in reports] == [(n, 8) for n in range(9)]


def test_no_more_requests_are_under_way_than_allowed_and_as_many_as_allowed(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = repeat(slowly(0.2, good()))
    ask(store, server.endpoint(concurrency=3))
    assert server.most_at_once == 3


def test_what_is_there_is_not_asked_again(store: ReceivedAnswers, server: Misbehaving) -> None:
    ask(store, server.endpoint())
    ask(store, server.endpoint())
    assert len(server.requests) == 8
    closed = EndpointConfig(
        url=f"http://127.0.0.1:{free_port()}/v1", model="m", key_variable="NOT_SET"
    )
    ask(store, closed)  # nothing is missing: neither server nor key are needed


def test_processes_ask_disjoint_parts_and_together_all(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    for rank in (1, 0, 2):
        ask(store, server.endpoint(), rank=rank, world=3)
    assert kept(store).keys() == KEYS
    assert len(server.requests) == 8
    assert len(list(store.folder.glob("received-*.jsonl"))) == 3


def test_a_real_server_answers_all_questions(store: ReceivedAnswers, served: Served) -> None:
    endpoint = EndpointConfig(url=served.url, model=served.model, concurrency=4)
    ask(store, endpoint)
    rows = kept(store)
    assert rows.keys() == KEYS
    assert all(row["answer"]["tokens"] <= 8 for row in rows.values())


def test_trying_out_asks_twice_with_different_seeds_and_stores_nothing(
    server: Misbehaving,
) -> None:
    trials = ask_twice(QUESTIONS[:2], server.endpoint(), DRAWN)
    assert [t.answers[0].text for t in trials] == ["after text 0", "after text 1"]
    assert len({body["seed"] for body in server.requests}) == 4


# --- faults --------------------------------------------------------------------------------------


def test_faults_that_pass_are_waited_out_and_counted(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = replies(status(500), broken_off, good(), raw(b"?"), EMPTY, good(), status(503))
    reports: list[RequestProgress] = []
    ask(store, server.endpoint(), progress=reports.append)
    assert kept(store).keys() == KEYS
    assert reports[-1].failed == 5
    assert reports[-1].failures() == "5 failed tries"
    assert len(server.requests) == 13


def test_a_repeated_try_has_another_seed(store: ReceivedAnswers, server: Misbehaving) -> None:
    server.replies = replies(EMPTY)
    ask(store, server.endpoint())
    first, second = server.requests[:2]
    assert first["prompt"] == second["prompt"]
    assert first["seed"] != second["seed"]


def test_the_server_is_given_the_time_it_asks_for(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = replies(status(429, retry_after="1"))
    ask(store, server.endpoint())
    assert kept(store).keys() == KEYS
    assert server.times[1] - server.times[0] >= 0.99


def test_a_server_that_stays_down_ends_it_and_what_was_received_is_kept(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = chain([good(), good()], repeat(status(500)))
    with pytest.raises(DistillSpecError, match="no answer in 3 tries; .*status 500") as it:
        ask(store, server.endpoint())
    assert "timeout_seconds" in it.value.fix
    assert server.url in it.value.where
    assert "k2" in it.value.where
    assert kept(store).keys() == {"k0", "k1"}
    assert len(server.requests) == 2 + 3 + 1  # is it the prompt? one that was answered tells
    server.replies = repeat(good())
    ask(store, server.endpoint())
    assert kept(store).keys() == KEYS
    assert len(server.requests) == 6 + 6


def test_a_server_that_is_down_when_few_are_missing_gives_up_none_of_them(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    with store.writer(0) as writer:
        for question in QUESTIONS[:6]:
            writer.answer(question, ANSWER)
    for reply, said in ((status(503), "no answer"), (status(400), "refuses"), (EMPTY, "of 8")):
        server.replies = repeat(reply)
        with pytest.raises(DistillSpecError, match=said):
            ask(store, server.endpoint(max_unanswered=0.12, retries=0))
        assert not store.unanswered(QUESTIONS)


@pytest.mark.parametrize(
    ("reply", "tries", "why"),
    [
        (status(400, {"detail": "filtered"}), 1, "the endpoint refuses: status 400: filtered"),
        (status(413), 1, "the endpoint refuses: status 413: no"),
        (status(422), 1, "the endpoint refuses: status 422: no"),
        (status(500), 3, "status 500: no"),
        (broken_off, 3, "no connection (RemoteProtocolError)"),
    ],
)
@pytest.mark.parametrize("bad", [1, 7])
def test_a_prompt_that_the_server_always_refuses_or_fails_is_given_up(
    store: ReceivedAnswers, server: Misbehaving, reply: Reply, tries: int, why: str, bad: int
) -> None:
    server.replies = repeat(only_to(QUESTIONS[bad], reply))
    ask(store, server.endpoint(retries=2))
    rows = kept(store)
    assert rows.keys() == KEYS
    assert {key: row["unanswered"] for key, row in rows.items() if "unanswered" in row} == {
        f"k{bad}": why
    }
    assert sum(body["prompt"] == f"text {bad}" for body in server.requests) == tries


def test_prompts_that_fail_are_given_up_where_only_stored_answers_show_that_others_do_not(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    """An earlier call had got all other answers, and asked the failing ones first."""
    for number, bad in enumerate((status(400), status(500), EMPTY)):
        separate = ReceivedAnswers(StoreFolder(store.folder, str(number), ""), {"url": str(number)})
        with separate.writer(0) as writer:
            for question in QUESTIONS[4:]:
                writer.answer(question, ANSWER)
        failing = {question.content for question in QUESTIONS[:4]}

        def reply(handler: Any, body: Any, bad: Reply = bad, failing: set[Any] = failing) -> None:
            (bad if body["prompt"] in failing else good())(handler, body)

        server.replies = repeat(reply)
        ask(separate, server.endpoint(max_unanswered=0.5, retries=0))
        assert separate.unanswered(QUESTIONS) == {"k0", "k1", "k2", "k3"}


def test_refusals_are_bounded_and_the_prompt_is_named(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = chain([good()], repeat(status(400, {"detail": "too long"})))
    with pytest.raises(DistillSpecError, match="2 of 8 prompts.*status 400: too long") as caught:
        ask(store, server.endpoint())
    assert "k2" in caught.value.where
    assert kept(store).keys() == {"k0"}


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_is_not_the_prompts_fault_ends_it_though_others_were_answered(
    store: ReceivedAnswers, server: Misbehaving, code: int
) -> None:
    server.replies = chain([good()], repeat(status(code)))
    with pytest.raises(DistillSpecError, match=f"status {code}"):
        ask(store, server.endpoint(max_unanswered=1.0))
    assert len(server.requests) == 2


def test_the_bound_is_over_all_processes_and_over_earlier_calls(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    """A sixth of 8 are 1.3, so 2; of the 2 questions of one of four processes they are 0.3."""
    sixth = 1 / 6
    for rank in (1, 2):
        server.replies = replies(EMPTY)
        ask(store, server.endpoint(max_unanswered=sixth, retries=0), rank=rank, world=4)
    assert store.unanswered(QUESTIONS) == {"k1", "k2"}
    server.replies = replies(EMPTY)
    with pytest.raises(DistillSpecError, match="3 of 8 prompts"):
        ask(store, server.endpoint(max_unanswered=sixth, retries=0), rank=3, world=4)


def test_what_another_process_has_given_up_meanwhile_counts(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    reports: list[RequestProgress] = []

    def meanwhile(progress: RequestProgress) -> None:
        reports.append(progress)
        if len(reports) == 2:
            with store.writer(1) as writer:
                writer.unanswered(QUESTIONS[1], "it was empty")

    server.replies = replies(EMPTY)
    with pytest.raises(DistillSpecError, match="2 of 8 prompts"):
        ask(store, server.endpoint(retries=0), rank=0, world=2, progress=meanwhile)
    assert store.unanswered(QUESTIONS) == {"k1"}


def test_none_may_stay_unanswered_where_the_share_is_0(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = chain([good()], repeat(only_to(QUESTIONS[1], EMPTY)))
    with pytest.raises(DistillSpecError, match="1 of 8 prompts"):
        ask(store, server.endpoint(max_unanswered=0.0))


def test_a_refusal_ends_it_at_once_and_what_is_under_way_is_still_kept(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = chain(
        [slowly(1.0, good()), slowly(1.0, good()), status(400, {"detail": "context too long"})],
        repeat(good()),
    )
    with pytest.raises(DistillSpecError, match="status 400: context too long"):
        ask(store, server.endpoint(concurrency=3))
    assert len(kept(store)) == 2
    assert len(server.requests) == 3


def test_a_first_question_that_is_refused_ends_it_and_is_named(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    """A wrong model name is not asked through all prompts."""
    server.replies = repeat(status(400))
    with pytest.raises(DistillSpecError, match="status 400") as caught:
        ask(store, server.endpoint(max_unanswered=1.0))
    assert "prompt k0" in caught.value.where
    assert len(server.requests) == 1
    with pytest.raises(DistillSpecError) as caught:
        ask_twice(QUESTIONS, server.endpoint(), DRAWN)
    assert "prompt k0" in caught.value.where


def test_unusable_answers_are_bounded_and_named(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = chain(repeat(good(), 4), repeat(raw(b"<html>", "text/html")))
    with pytest.raises(DistillSpecError, match="2 of 8 prompts") as caught:
        ask(store, server.endpoint())
    assert "<html>" in caught.value.what
    assert "max_unanswered (0.01)" in caught.value.fix
    assert "k5" in caught.value.where
    assert len(server.requests) == 4 + 3 + 3
    assert len(kept(store)) == 4  # nothing is given up for good where it ends in an error


def test_a_server_that_has_never_answered_is_not_asked_through_all_prompts(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = repeat(EMPTY)
    with pytest.raises(DistillSpecError, match="3 of 8 prompts"):
        ask(store, server.endpoint(max_unanswered=1.0, retries=0))
    assert len(server.requests) == 3


def test_a_few_unanswered_prompts_are_left_out_and_not_asked_again(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    server.replies = chain([good(), EMPTY, EMPTY, EMPTY], repeat(good()))
    ask(store, server.endpoint(max_unanswered=0.2))
    rows = kept(store)
    assert rows.keys() == KEYS
    assert rows["k1"]["unanswered"] == "the answer is empty"
    assert sum("answer" in row for row in rows.values()) == 7
    ask(store, server.endpoint(max_unanswered=0.2))
    assert len(server.requests) == 10


def test_an_interrupted_generation_goes_on_where_it_stood(
    store: ReceivedAnswers, server: Misbehaving
) -> None:
    """Ctrl-C of a real process while its third question is under way."""
    program = (
        "import signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # maybe inherited as ignored\n"
        "from distillspec.recipe.endpoint import EndpointConfig\n"
        "from tests.corpus.served.test_request_pool import ReceivedAnswers, StoreFolder, ask\n"
        "store = ReceivedAnswers(StoreFolder(Path(sys.argv[1]), 'target', ''), {'url': 'u'})\n"
        "ask(store, EndpointConfig(url=sys.argv[2], model='m', concurrency=1))\n"
    )
    server.replies = chain([good(), good(), slowly(60.0, good())], repeat(good()))
    line = [sys.executable, "-c", program, str(store.folder.parent), server.url]
    process = subprocess.Popen(line, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while len(server.requests) < 3:
            assert process.poll() is None, "it ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert b"KeyboardInterrupt" in said
    assert kept(store).keys() == {"k0", "k1"}
    ask(store, server.endpoint())
    assert kept(store).keys() == KEYS
    assert [body["prompt"] for body in server.requests[3:]] == [q.content for q in QUESTIONS[2:]]
