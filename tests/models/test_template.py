from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.models.loading import load_tokenizer
from distillspec.models.template import render_chat, template_hash

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if messages[0]['role'] != 'user' %}"
    "{{ raise_exception('the user speaks first') }}{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def chatty(tiny_pair: Path) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(str(tiny_pair / "target"))
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_chat_ends_where_the_model_is_to_speak(chatty: PreTrainedTokenizerBase) -> None:
    assert render_chat(chatty, [{"role": "user", "content": "Hi"}]) == "<user>Hi<assistant>"


def test_what_the_template_is_told_beside_the_messages_shapes_the_prompt_and_the_hash(
    chatty: PreTrainedTokenizerBase,
) -> None:
    chatty.chat_template = TEMPLATE + "{% if not thinks | default(true) %}<silent>{% endif %}"
    asked = [{"role": "user", "content": "Hi"}]
    assert render_chat(chatty, asked, {"thinks": False}) == "<user>Hi<assistant><silent>"
    assert render_chat(chatty, asked, {"thinks": True}) == render_chat(chatty, asked)
    hashes = [template_hash(chatty, told) for told in (None, {}, {"thinks": False})]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_hash_changes_with_the_template(chatty: PreTrainedTokenizerBase) -> None:
    before = template_hash(chatty)
    assert len(before) == 64
    chatty.chat_template = TEMPLATE + " "
    assert template_hash(chatty) != before
    chatty.chat_template = TEMPLATE
    assert template_hash(chatty) == before


def test_a_tokenizer_without_template_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DistillSpecError, match="no chat template"):
        render_chat(tokenizer, [{"role": "user", "content": "Hi"}])
    with pytest.raises(DistillSpecError, match="no chat template"):
        template_hash(tokenizer)


def test_messages_that_the_template_refuses_are_an_error(chatty: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DistillSpecError, match="the user speaks first"):
        render_chat(chatty, [{"role": "assistant", "content": "Hi"}])
