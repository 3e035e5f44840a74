from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_tokenizer
from distillspec.models.vocabulary.chat_template import ChatTemplate, SplitTurnError

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if messages[0]['role'] != 'user' %}"
    "{{ raise_exception('the user speaks first') }}{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ASK = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Ho"}


@pytest.fixture
def chatty(tiny_pair: Path) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(str(tiny_pair / "target"))
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_chat_ends_where_the_model_is_to_speak(chatty: PreTrainedTokenizerBase) -> None:
    assert ChatTemplate(chatty).prompt([ASK]) == "<user>Hi<assistant>"
    assert ChatTemplate(chatty).conversation([ASK, ANSWER]) == "<user>Hi<assistant>Ho"


def test_an_answer_is_what_the_conversation_has_behind_its_prompt(
    chatty: PreTrainedTokenizerBase,
) -> None:
    chatty.chat_template = TEMPLATE.replace("{% endfor %}", "<end>{% endfor %}", 1)
    template = ChatTemplate(chatty)
    assert template.turn([ASK, ANSWER]) == ("<user>Hi<end><assistant>", "Ho<end>")
    assert template.turn([ASK]) == ("<user>Hi<end><assistant>", None)


def test_a_reasoning_that_the_prompt_opens_is_opened_once(chatty: PreTrainedTokenizerBase) -> None:
    chatty.chat_template = TEMPLATE.replace("<assistant>", "<assistant><think>")
    answer = {"role": "assistant", "content": "<think>so</think>Ho"}
    assert ChatTemplate(chatty).turn([ASK, answer]).response == "so</think>Ho"
    with pytest.raises(SplitTurnError) as caught:
        ChatTemplate(chatty).turn([ASK, ANSWER], where="rows, line 3")
    assert "'<user>Hi<assistant><think>'" in caught.value.what
    assert "'<user>Hi<assistant>Ho'" in caught.value.what
    assert caught.value.where.startswith("rows, line 3; chat template of ")


def test_variables_shape_the_prompt_and_the_hash(chatty: PreTrainedTokenizerBase) -> None:
    chatty.chat_template = TEMPLATE + "{% if not thinks | default(true) %}<silent>{% endif %}"
    silent, plain = ChatTemplate(chatty, {"thinks": False}), ChatTemplate(chatty)
    assert silent.prompt([ASK]) == "<user>Hi<assistant><silent>"
    assert ChatTemplate(chatty, {"thinks": True}).prompt([ASK]) == plain.prompt([ASK])
    assert plain.hash() == ChatTemplate(chatty, {}).hash() != silent.hash()


def test_the_hash_changes_with_the_template(chatty: PreTrainedTokenizerBase) -> None:
    before = ChatTemplate(chatty).hash()
    assert len(before) == 64
    chatty.chat_template = TEMPLATE + " "
    assert ChatTemplate(chatty).hash() != before
    chatty.chat_template = TEMPLATE
    assert ChatTemplate(chatty).hash() == before


def test_a_tokenizer_without_template_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    template = ChatTemplate(tokenizer)
    assert not template.exists
    with pytest.raises(DistillSpecError, match="no chat template"):
        template.prompt([ASK])
    with pytest.raises(DistillSpecError, match="no chat template"):
        template.hash()


def test_messages_that_the_template_refuses_are_an_error(chatty: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DistillSpecError, match="the user speaks first"):
        ChatTemplate(chatty).prompt([ANSWER])


@pytest.mark.parametrize(
    "fault",
    [
        "{{ 1 // 0 }}",
        "{{ messages[9].content }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ [].pop() }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ 'a'.encode('ascii').decode('nothing') }}",
        "{{ ''.__class__.mro() }}",
        "{% if %}",
        "{{ messages | tojson(indent='x', separators=3) }}",
    ],
)
def test_every_error_of_a_template_names_the_template(
    chatty: PreTrainedTokenizerBase, fault: str
) -> None:
    chatty.chat_template = fault
    with pytest.raises(DistillSpecError, match="the chat template refuses") as caught:
        ChatTemplate(chatty).prompt([ASK], where="rows, line 3")
    assert "rows, line 3" in caught.value.where


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "01 Feb 2026"),
        ("{{ strftime_now('%Y-%m-%dT%H:%M:%S') }}", "2026-02-01T00:00:00"),
        ("{{ strftime_now(format='%-d %B, %A') }}", "1 February, Sunday"),
        ("{{ strftime_now('%D %h, 100%% of %C, %%d') }}", "02/01/26 Feb, 100% of 20, %d"),
        ("{{ date_string }}", "01 Feb 2026"),
        (
            "{% if strftime_now is defined %}{% set x = strftime_now('%y') %}{{ x }}{% endif %}",
            "26",
        ),
        ("{% macro m() %}{{ strftime_now('%j') }}{% endmacro %}{{ m() }}", "032"),
        # As Llama 3.2's, and as Llama 3.1's, whose constant every server writes.
        (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
            "{% endif %}{{ date_string }}",
            "01 Feb 2026",
        ),
        (
            "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
            "{{ date_string }}",
            "26 Jul 2024",
        ),
    ],
)
def test_no_template_reads_the_clock(
    chatty: PreTrainedTokenizerBase, written: str, read: str
) -> None:
    chatty.chat_template = written
    assert ChatTemplate(chatty, date=date(2026, 2, 1)).prompt([ASK]) == read


def test_the_text_around_a_date_stays_as_the_template_has_it(
    chatty: PreTrainedTokenizerBase,
) -> None:
    for before in ("", "\n", "\n\n  ", "  {% if true %}\n\n{% endif %}", "{#- x #}\n", " a\n"):
        chatty.chat_template = before + "{{ messages[0].content }}\n"
        plain = ChatTemplate(chatty).prompt([ASK])
        chatty.chat_template = before + "{{ messages[0].content }}{{ strftime_now('') }}\n"
        assert ChatTemplate(chatty).prompt([ASK]) == plain


def test_arguments_of_calls_are_objects_to_a_template_however_they_are_written(
    chatty: PreTrainedTokenizerBase,
) -> None:
    chatty.chat_template = "{% for c in messages[1].tool_calls %}{{ c | tojson }}{% endfor %}"
    texts = set()
    for arguments in ({"item": "bolt"}, '{"item": "bolt"}'):
        call = {"type": "function", "function": {"name": "stock", "arguments": arguments}}
        answer = {"role": "assistant", "tool_calls": [call]}
        texts.add(ChatTemplate(chatty).conversation([ASK, answer]))
    (text,) = texts
    assert '"arguments": {"item": "bolt"}' in text
    bare: dict[str, Any] = {"name": "stock", "arguments": "{}"}
    answer = {"role": "assistant", "tool_calls": [bare]}
    rendered = ChatTemplate(chatty).conversation([ASK, answer])
    assert rendered == '{"name": "stock", "arguments": {}}'
    deep = {"role": "assistant", "tool_calls": [{"name": "stock", "arguments": "[" * 100_000}]}
    assert "[[[" in ChatTemplate(chatty).conversation([ASK, deep])


def test_a_template_takes_parts_if_it_writes_their_text_and_not_their_frame(
    chatty: PreTrainedTokenizerBase,
) -> None:
    assert not ChatTemplate(chatty).takes_parts
    for written, takes in (
        ("{% for p in messages[0].content %}{{ p.text }}{% endfor %}", True),
        ("{{ messages[0].content | tojson }}", False),
        ("{{ 'x' + messages[0].content }}", False),
        ("nothing", False),
    ):
        chatty.chat_template = written
        assert ChatTemplate(chatty).takes_parts is takes
