from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.passage import Passage
from distillspec.corpus.rows import passage_of
from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Jsonl

SOURCE = Jsonl(kind="jsonl", path="data.jsonl")
ASK = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}


def passage(row: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Passage:
    return passage_of(row, SOURCE, tokenizer, name="data", where="data.jsonl, line 7")


def test_a_prompt_with_and_without_response(tokenizer: PreTrainedTokenizerFast) -> None:
    both = passage({"prompt": "a", "response": "b"}, tokenizer)
    assert (both.prompt, both.response, both.kind) == ("a", "b", "plain")
    assert passage({"prompt": "a"}, tokenizer).response is None
    assert passage({"prompt": "a", "response": None}, tokenizer).key == both.key


def test_the_last_assistant_message_is_the_response(tokenizer: PreTrainedTokenizerFast) -> None:
    found = passage({"messages": [ASK, ANSWER, ASK, ANSWER]}, tokenizer)
    assert found.prompt == "<user>2+2?\n<assistant>4\n<user>2+2?\n<assistant>"
    assert (found.response, found.kind) == ("4", "chat")


def test_a_chat_that_ends_with_a_question_has_no_response(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    found = passage({"messages": [ASK]}, tokenizer)
    assert (found.prompt, found.response) == ("<user>2+2?\n<assistant>", None)


def test_a_row_with_both_is_taken_as_its_chat(tokenizer: PreTrainedTokenizerFast) -> None:
    assert passage({"prompt": "2+2?", "messages": [ASK, ANSWER]}, tokenizer).kind == "chat"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"text": "a"}, "neither 'prompt' nor 'messages'"),
        ({"prompt": 3}, "'prompt' is a number"),
        ({"prompt": ["a"]}, "'prompt' is a list"),
        ({"prompt": ""}, "'prompt' is empty"),
        ({"prompt": "a", "response": {"x": 1}}, "'response' is an object"),
        ({"messages": []}, "an empty list"),
        ({"messages": "hello"}, "a text"),
        ({"messages": [{"role": "user"}]}, "message 1 is not an object with 'role' and 'content'"),
        ({"messages": [ASK, "4"]}, "message 2"),
        ({"messages": [{"role": "user", "content": None}]}, "content of message 1 is null"),
        ({"messages": [ANSWER]}, "without a question"),
    ],
)
def test_a_faulty_row_is_an_error_that_names_its_place(
    row: dict[str, Any], what: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DistillSpecError, match=what) as caught:
        passage(row, tokenizer)
    assert caught.value.where == "data.jsonl, line 7"


def test_missing_fields_are_told_with_those_that_are_there(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(DistillSpecError) as caught:
        passage({"question": "a", "answer": "b"}, tokenizer)
    assert "question, answer" in caught.value.mend
