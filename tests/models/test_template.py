from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.models.loading import load_tokenizer
from distillspec.models.template import end_of_turn, render_chat, template_hash

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


SPEAKS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}"


@pytest.mark.parametrize(
    ("behind", "end"),
    [
        ("<|end|>\n{% endfor %}", "<|end|>"),  # Phi
        ("<end_of_turn>\n{% endfor %}", "<end_of_turn>"),  # Gemma
        ("{{ eos_token }}{% endfor %}", "<|endoftext|>"),
        ("<end_of_turn><|end|>{% endfor %}", "<end_of_turn>"),
        ("\n{% endfor %}", None),
        ("<plain>{% endfor %}", None),  # the template's own words, or a token that is not special
        ("{% endfor %}", None),
        (" <|end|>{% endfor %}", None),
        ("{% endfor %}{{ raise_exception('no such chat') }}", None),
        ("{% break %}{% endfor %}", None),  # what was said is not shown
    ],
)
def test_a_turn_ends_with_the_special_token_right_behind_what_was_said(
    chatty: PreTrainedTokenizerBase, behind: str, end: str | None
) -> None:
    chatty.add_special_tokens({"additional_special_tokens": ["<|end|>", "<end_of_turn>", "<end"]})
    chatty.add_tokens(["<plain>"])
    chatty.chat_template = SPEAKS + behind
    found = end_of_turn(chatty)
    assert found == (None if end is None else chatty.convert_tokens_to_ids(end))


def test_without_a_template_no_turn_ends(chatty: PreTrainedTokenizerBase) -> None:
    chatty.chat_template = None
    assert end_of_turn(chatty) is None
