from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from distillspec.corpus.served.answers import Answer, ReceivedAnswers, tokenised
from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.sources.tokenizing import Encoder, PromptText, Tokenizer
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.errors import DistillSpecError
from tests.corpus.conftest import TURN_END

QUESTIONS = [ApiRequest(f"k{i}", f"text {i}") for i in range(6)]
SETTINGS: dict[str, Any] = {"url": "http://h/v1", "model": "m", "request.temperature": 0.7}


def answer(text: str, *, ended: bool = False, tokens: int | None = None) -> Answer:
    return Answer(text, ended, tokens, "m-1")


def store(folder: Path, **changes: Any) -> ReceivedAnswers:
    return ReceivedAnswers(StoreFolder(folder, "target", ""), {**SETTINGS, **changes})


def filled(folder: Path, count: int = 3, rank: int = 0) -> ReceivedAnswers:
    made = store(folder)
    with made.writer(rank) as writer:
        for question in QUESTIONS[:count]:
            writer.answer(question, answer(f"so {question.key}"))
    return made


def test_each_answer_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    made = store(tmp_path)
    with made.writer(0) as writer:
        for count, question in enumerate(QUESTIONS, start=1):
            writer.answer(question, answer("x"))
            assert made.settled(QUESTIONS) == {q.key for q in QUESTIONS[:count]}


def test_answers_of_all_processes_are_read_and_those_of_earlier_ones_stay(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    filled(tmp_path, 2)
    made = store(tmp_path)
    with made.writer(1) as writer:
        writer.answer(QUESTIONS[3], answer("other"))
    with made.writer(0) as writer:
        writer.answer(QUESTIONS[4], answer("later"))
    result = made.received(QUESTIONS, Encoder(tokenizer), 9)
    assert {key: tokenizer.decode(ids) for key, ids in result.responses.items()} == {
        "k0": "so k0",
        "k1": "so k1",
        "k3": "other",
        "k4": "later",
    }
    assert result.makers == ["m-1"]


def test_a_line_that_a_killed_process_left_unfinished_costs_its_answer_alone(
    tmp_path: Path,
) -> None:
    made = filled(tmp_path)
    (path,) = tmp_path.rglob("received-*.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    assert made.settled(QUESTIONS) == {"k0", "k1"}
    with made.writer(0) as writer:
        writer.answer(QUESTIONS[5], answer("x"))
    assert made.settled(QUESTIONS) == {"k0", "k1", "k5"}
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_killed_process_loses_nothing_that_it_had_received(tmp_path: Path) -> None:
    """kill -9 of a real process, as soon as it has written some answers."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.corpus.served.test_answers import QUESTIONS, answer, store\n"
        "with store(Path(sys.argv[1])).writer(0) as writer:\n"
        "    for question in QUESTIONS:\n"
        "        writer.answer(question, answer('x')); time.sleep(0.3)\n"
    )
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=root)
    path = store(tmp_path).folder / "received-00000.jsonl"
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") < 2:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 2 <= len(store(tmp_path).settled(QUESTIONS)) < len(QUESTIONS)


def test_a_key_that_stands_for_another_text_is_not_settled(tmp_path: Path) -> None:
    made = filled(tmp_path)
    assert made.settled([ApiRequest("k0", "another text")]) == set()


def test_more_prompts_go_on_with_the_same_store(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    assert store(tmp_path).settled(QUESTIONS) == {"k0", "k1"}


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://g/v1"},
        {"model": "n"},
        {"request.temperature": 1.0},
        {"request.top_k": -1},
    ],
    ids=str,
)
def test_answers_asked_for_otherwise_are_another_store(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    filled(tmp_path)
    assert not store(tmp_path, **change).settled(QUESTIONS)
    assert len(store(tmp_path).settled(QUESTIONS)) == 3


def test_what_was_given_up_is_settled_and_has_no_response(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    made = filled(tmp_path, 1)
    with made.writer(0) as writer:
        writer.unanswered(QUESTIONS[2], "it was empty")
    assert made.settled(QUESTIONS) == {"k0", "k2"}
    result = made.received(QUESTIONS, Encoder(tokenizer), 9)
    assert result.responses.keys() == {"k0"}
    assert result.unanswered == ["k2"]
    assert made.unanswered(QUESTIONS) == {"k2"}
    assert made.unanswered([ApiRequest("k2", "another text")]) == set()


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"key": "k"}', '{"key": 1, "asked": 2, "answer": {}}']
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    made = filled(tmp_path, 1)
    (path,) = tmp_path.rglob("received-*.jsonl")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DistillSpecError, match="damaged") as caught:
        made.settled(QUESTIONS)
    assert caught.value.where == f"{path}, line 2"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DistillSpecError, match="cannot write here"):
        store(tmp_path / "file" / "store")


def test_only_what_ended_by_itself_gets_an_end_of_text(tokenizer: Tokenizer) -> None:
    given = [answer("abc", ended=True), answer("abc"), answer("abcdef", ended=True)]
    result = tokenised(QUESTIONS[: len(given)], given, Encoder(tokenizer), 5).tokens
    letters = tokenizer("abcdef", add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    assert result == [(*letters[:3], end), tuple(letters[:3]), tuple(letters[:5])]


def test_an_answer_to_a_chat_ends_as_the_template_ends_a_turn(turning: Tokenizer) -> None:
    """The target ends it so, and not with the tokenizer's end-of-text."""
    chat = ApiRequest("c", ({"role": "user", "content": "a?"},))
    given = [answer("a", ended=True), answer("a", ended=True), answer("a")]
    result = tokenised([chat, QUESTIONS[0], chat], given, Encoder(turning), 5).tokens
    turn_end = turning.convert_tokens_to_ids(TURN_END)
    assert [ids[1:] for ids in result] == [(turn_end,), (turning.eos_token_id,), ()]


def test_an_answer_goes_on_from_the_last_token_of_its_prompt(tokenizer: Tokenizer) -> None:
    """A tokenizer that puts a space before every text puts none between question and answer."""
    made = copy.deepcopy(tokenizer)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    read = PromptText("ab", tuple(made("ab", add_special_tokens=False)["input_ids"]))
    given = [answer("cd", ended=True)]
    (result,) = tokenised([ApiRequest("k", "ab", read)], given, Encoder(made), 9).tokens
    assert made.decode([*read.tokens, *result]) == f" abcd{made.eos_token}"


def test_half_a_character_at_a_cut_is_dropped_and_elsewhere_it_stays(tokenizer: Tokenizer) -> None:
    given = [answer("ab\ufffd"), answer("a\ufffdb"), answer("ab\ufffd", ended=True)]
    result = [tokenizer.decode(ids, skip_special_tokens=True) for ids in
             tokenised(QUESTIONS[: len(given)], given, Encoder(tokenizer), 20).tokens]  # fmt: skip
    assert result == ["ab", "a\ufffdb", "ab\ufffd"]


def test_the_name_of_a_special_token_in_an_answer_is_plain_text(tokenizer: Tokenizer) -> None:
    given = [answer(f"a{tokenizer.eos_token}b")]
    (result,) = tokenised(QUESTIONS[:1], given, Encoder(tokenizer), 50).tokens
    assert tokenizer.eos_token_id not in result


def test_the_servers_counts_are_compared_with_ours(tokenizer: Tokenizer) -> None:
    given = [
        answer("abc", ended=True, tokens=3),  # ours has the end as well
        answer("abcd", tokens=4),
        answer("abcd", tokens=2),
        answer("abcd"),
        answer("abcdefghij", tokens=6),
    ]
    counts = tokenised(QUESTIONS[: len(given)], given, Encoder(tokenizer), 6).counts
    assert counts._asdict() == {"texts": 4, "server": 15, "ours": 4 + 4 + 4 + 7, "equal": 3}


def test_the_servers_counts_of_the_prompts_are_compared_with_what_the_draft_reads(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    read = PromptText("abcdefg", tuple(tokenizer("abcdefg")["input_ids"]))
    asked = [ApiRequest(f"k{i}", "text", one) for i, one in enumerate([read, read, read, None])]
    given = [answer("a")._replace(prompt_tokens=server_count) for server_count in (7, 6, None, 7)]
    made = store(tmp_path)
    with made.writer(0) as writer:
        for question, one in zip(asked, given, strict=True):
            writer.answer(question, one)
    result = made.received(asked, Encoder(tokenizer), 9)
    assert result.prompts._asdict() == {"texts": 2, "server": 13, "ours": 14, "equal": 1}


def test_answers_that_were_stored_without_a_count_of_the_prompt_are_read(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    made = filled(tmp_path, 1)
    (path,) = tmp_path.rglob("received-*.jsonl")
    row = json.loads(path.read_text())
    del row["answer"]["prompt_tokens"]
    path.write_text(json.dumps(row) + "\n")
    assert made.received(QUESTIONS, Encoder(tokenizer), 9).responses.keys() == {"k0"}
