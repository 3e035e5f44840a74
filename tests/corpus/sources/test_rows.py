from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.passage import Passage
from distillspec.corpus.sources.rows import Chats, check_categories, field, outer, passage_of
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.chat_template import ChatTemplate
from distillspec.recipe.data import JsonlSource
from tests.corpus.conftest import chats_of

SOURCE = JsonlSource(kind="jsonl", path="data.jsonl")
ASK = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}


def passage(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerFast, source: JsonlSource = SOURCE
) -> Passage:
    result = passage_of(row, source, chats_of(tokenizer), name="data", where="data.jsonl, line 7")
    assert result is not None
    return result


def reading(**values: Any) -> JsonlSource:
    return JsonlSource(kind="jsonl", path="data.jsonl", **values)


def test_a_prompt_with_and_without_response(tokenizer: PreTrainedTokenizerFast) -> None:
    both = passage({"prompt": "a", "response": "b"}, tokenizer)
    assert (both.prompt, both.response, both.kind) == ("a", "b", "plain")
    assert passage({"prompt": "a"}, tokenizer).response is None
    assert passage({"prompt": "a", "response": None}, tokenizer).key == both.key


def test_the_last_assistant_message_is_the_response(tokenizer: PreTrainedTokenizerFast) -> None:
    result = passage({"messages": [ASK, ANSWER, ASK, ANSWER]}, tokenizer)
    assert result.prompt == "<user>2+2?\n<assistant>4\n<user>2+2?\n<assistant>"
    assert (result.response, result.kind) == ("4\n", "chat")


def test_a_chat_that_ends_with_a_question_has_no_response(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    result = passage({"messages": [ASK]}, tokenizer)
    assert (result.prompt, result.response) == ("<user>2+2?\n<assistant>", None)


def test_a_chat_keeps_the_messages_that_its_prompt_was_made_of(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert passage({"messages": [ASK, ANSWER, ASK, ANSWER]}, tokenizer).messages == (
        ASK,
        ANSWER,
        ASK,
    )
    asked = passage({"prompt": "a"}, tokenizer, source=reading(as_chat="if-template"))
    assert asked.messages == ({"role": "user", "content": "a"},)
    assert passage({"prompt": "a"}, tokenizer).messages is None


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
        ({"messages": [ANSWER]}, "without a question"),
    ],
)
def test_a_faulty_row_is_an_error_that_names_its_place(
    row: dict[str, Any], what: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DistillSpecError, match=what) as caught:
        passage(row, tokenizer)
    assert caught.value.where == "data.jsonl, line 7"


def test_a_missing_field_is_an_error_that_lists_the_fields(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(DistillSpecError) as caught:
        passage({"ask": "a", "answer": "b"}, tokenizer)
    assert "ask, answer" in caught.value.fix


def test_question_and_answer_are_read_where_nothing_else_is_named(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    row = {"question": "2+2?", "answer": "4"}
    result = passage(row, tokenizer, reading(before="Q: ", after="\nA:"))
    assert (result.prompt, result.response) == ("Q: 2+2?\nA:", "4")
    assert passage({**row, "response": "5"}, tokenizer).response == "5"
    assert passage({**row, "prompt": "3"}, tokenizer).response is None  # no row of that kind
    assert passage(row, tokenizer, reading(response="question")).response == "2+2?"
    with pytest.raises(DistillSpecError, match="neither 'ask' nor 'messages'"):
        passage(row, tokenizer, reading(prompt="ask"))


TOOL = {"type": "function", "function": {"name": "stock", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "stock", "arguments": '{"item": "bolt"}'}}
CALLS = (
    "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content | default('') | trim }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function | tojson }}{% endfor %}<|endoftext|>\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def calling(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    made = copy.deepcopy(tokenizer)
    made.chat_template = CALLS
    return made


@pytest.mark.parametrize("content", [None, "", "absent"])
@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL])])
def test_a_last_turn_that_calls_a_tool_is_a_response(
    calling: PreTrainedTokenizerFast, content: str | None, tools: Any
) -> None:
    answer: dict[str, Any] = {"role": "assistant", "tool_calls": [CALL]}
    if content != "absent":
        answer["content"] = content
    result = passage({"messages": [ASK, answer], "tools": tools}, calling)
    assert result.prompt == "[stock]<user>2+2?<|endoftext|>\n<assistant>"
    call = '{"name": "stock", "arguments": {"item": "bolt"}}'
    assert result.response == f"CALL {call}<|endoftext|>\n"
    assert result.tools == (TOOL,)


def test_the_response_is_what_the_template_makes_of_it(calling: PreTrainedTokenizerFast) -> None:
    result = passage({"messages": [ASK, {"role": "assistant", "content": "  4 "}]}, calling)
    assert result.response == "4<|endoftext|>\n"


def test_a_chats_key_is_of_what_was_said_and_not_of_what_the_template_writes(
    calling: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast
) -> None:
    row = {"messages": [ASK, ANSWER]}
    key = passage(row, calling).key
    assert passage(row, tokenizer).key == key
    assert passage({"messages": [{**ASK, "name": None}, ANSWER]}, calling).key == key
    assert passage({"messages": [ASK, {**ANSWER, "content": "5"}]}, calling).key == key
    assert passage({**row, "tools": [TOOL]}, calling).key != key
    assert passage({"messages": [{**ASK, "content": "3"}, ANSWER]}, calling).key != key


def test_times_in_messages_and_tools_become_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Data sets of the Hub have columns of times, which neither JSON nor an API takes."""
    at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    row = {"messages": [{**ASK, "timestamp": at}], "tools": [{"name": "look", "since": at}]}
    result = passage(row, tokenizer)
    assert result.messages == ({**ASK, "timestamp": str(at)},)
    assert result.tools == ({"name": "look", "since": str(at)},)


def test_parts_of_text_are_read_by_every_template(calling: PreTrainedTokenizerFast) -> None:
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]
    row = {"messages": [{"role": "user", "content": parts}, ANSWER]}
    joined = "<user>2+\n2?<|endoftext|>\n<assistant>"
    assert passage(row, calling).prompt == joined
    calling.chat_template = CALLS.replace(
        "m.content | default('') | trim",
        "m.content if m.content is string else m.content | map(attribute='text') | join('')",
    )
    assert passage(row, calling).prompt == joined.replace("\n2?", "2?")


def test_chats_whose_answer_is_not_behind_the_prompt_are_left_out_and_counted(
    calling: PreTrainedTokenizerFast,
) -> None:
    """The generation prompt opens a reasoning that the template writes of no answer."""
    calling.chat_template = CALLS.replace("<assistant>{% endif %}", "<assistant><think>{% endif %}")
    chats = chats_of(calling)
    rows: list[dict[str, Any]] = [
        {"messages": [ASK, ANSWER]},
        {"messages": [ASK, {"role": "assistant", "content": "<think>sum</think>4"}]},
        {"messages": [ASK, ANSWER]},
        {"messages": [ASK]},
    ]
    result = [
        passage_of(row, SOURCE, chats, name="d", where=f"row {i}") for i, row in enumerate(rows)
    ]
    assert [chat and chat.response for chat in result] == [
        None,
        "sum</think>4<|endoftext|>\n",
        None,
        None,
    ]
    assert result[0] is result[2] is None
    assert result[3] is not None and result[3].prompt.endswith("<assistant><think>")
    note = chats.note()
    assert note is not None
    assert note.startswith("2 chats left out")
    silent = Chats(ChatTemplate(calling), answers_wanted=False)
    asked = passage_of(rows[0], SOURCE, silent, name="d", where="row 0")
    assert asked is not None and (asked.prompt, asked.response) == (result[3].prompt, None)
    assert (silent.note() or "").startswith("1 chats used without the answers")
    assert "<assistant><think>'" in note and "<assistant>4<|endoftext|>" in note and "row 0" in note


def test_calls_that_the_template_does_not_write_are_left_out(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    chats = chats_of(tokenizer)
    answer = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert passage_of({"messages": [ASK, answer]}, SOURCE, chats, name="d", where="row 3") is None
    assert "does not write the call of 'stock'" in (chats.note() or "")


def test_the_first_turn_is_the_prompt_even_if_the_row_has_one(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    row = {"turns": ["first", "second"], "prompt": "no", "messages": [ASK]}
    result = passage(row, tokenizer, reading(turns="turns"))
    assert (result.prompt, result.kind) == ("first", "plain")
    assert passage({"turns": 3, "prompt": "a"}, tokenizer).prompt == "a"  # unless turns are named


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "a"}, "no 'turns'"),
        ({"turns": []}, "'turns' is an empty list, not a list of turns"),
        ({"turns": "a"}, "'turns' is a text, not a list of turns"),
        ({"turns": [""]}, "'turns.0' is empty"),
        ({"turns": [None, "b"]}, "'turns.0' is null"),
    ],
)
def test_turns_that_hold_no_question_are_errors(
    row: dict[str, Any], what: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DistillSpecError, match=what) as caught:
        passage(row, tokenizer, reading(turns="turns"))
    assert caught.value.where == "data.jsonl, line 7"


def test_fields_inside_fields_are_reached_by_their_path() -> None:
    row = {"a": {"b": [{"c": "deep"}, "second"]}, "a.b": "own", "text": "abc"}
    assert field(row, "a.b.0.c") == "deep"
    assert field(row, "a.b") == "own"
    for path in ("a.x", "a.b.2", "a.b.x", "text.0", "none", "a.b.0.c.d"):
        assert field(row, path) is None
    assert (outer("a.b.0.c", row), outer("a.b", row), outer("x", row)) == ("a", "a.b", "x")


def test_prompt_response_and_category_may_be_paths(tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"talk": [{"value": "ask"}, {"value": "answer"}], "meta": {"kind": 7}}
    source = reading(prompt="talk.0.value", response="talk.1.value", category="meta.kind")
    result = passage(row, tokenizer, source)
    assert (result.prompt, result.response, result.category) == ("ask", "answer", "7")


def test_categories_are_merged_and_may_be_missing_in_some_rows(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    source = reading(category="of", merge={"math": "mt_bench"})
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "of": "math"},
        {"prompt": "b", "of": "qa"},
        {"prompt": "c"},
        {"prompt": "d", "of": ""},
        {"messages": [ASK], "of": "chat"},
    ]
    result = [passage(row, tokenizer, source) for row in rows]
    assert [p.category for p in result] == ["mt_bench", "qa", None, None, "chat"]
    check_categories(result, source, "data.jsonl")
    with pytest.raises(DistillSpecError, match="none has a field 'of'"):
        check_categories(result[2:4], source, "data.jsonl")
    check_categories(result[2:4], SOURCE, "data.jsonl")


def test_a_category_that_is_no_name_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DistillSpecError, match="'of' is a list, not the name of a category"):
        passage({"prompt": "a", "of": ["x"]}, tokenizer, reading(category="of"))


def test_a_prompt_is_asked_in_a_chat_where_the_source_wants_it_and_there_is_a_template(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    source = reading(as_chat="if-template")
    result = passage({"prompt": "2+2?", "response": "4"}, tokenizer, source)
    assert (result.prompt, result.response) == ("<user>2+2?\n<assistant>", "4\n")
    assert result.kind == "chat"
    assert passage({"prompt": "2+2?"}, tokenizer).kind == "plain"
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    result = passage({"prompt": "2+2?"}, plain, source)
    assert (result.prompt, result.kind) == ("2+2?", "plain")


def test_errors_name_the_keys_of_the_place_the_source_stands_in(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(DistillSpecError) as caught:
        passage_of(
            {"x": "a"}, SOURCE, chats_of(tokenizer), name="d", where="", section="prompts.source"
        )
    assert "prompts.source.prompt=..." in caught.value.fix


def test_a_text_is_cut_after_so_many_words(tokenizer: PreTrainedTokenizerFast) -> None:
    source = reading(prompt="text", after_words=2)
    result = passage({"text": "one two  three four"}, tokenizer, source)
    assert (result.prompt, result.response, result.kind) == ("one two", "  three four", "plain")
    for short in ("one two", "one two ", "one"):
        assert (
            passage_of({"text": short}, source, chats_of(tokenizer), name="d", where="here") is None
        )
    with pytest.raises(ValueError, match="after_words"):
        reading(after_words=2, turns="turns")


def test_what_stands_before_every_prompt_stands_before_no_chat(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    source = reading(before="summarize: ")
    assert passage({"prompt": "abc"}, tokenizer, source).prompt == "summarize: abc"
    assert "summarize" not in passage({"messages": [ASK, ANSWER]}, tokenizer, source).prompt
    with pytest.raises(ValueError, match="remove after"):
        reading(after_words=2, after="!")
