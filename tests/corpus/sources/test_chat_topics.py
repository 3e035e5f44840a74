from __future__ import annotations

import copy
from collections import Counter

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.chat_subjects import FIELDS
from distillspec.corpus.sources.chat_topics import chat_passages
from distillspec.corpus.sources.passage import split
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import ChatTopicsSource
from tests.corpus.conftest import chats_of


def source(count: int) -> ChatTopicsSource:
    return ChatTopicsSource(kind="chat-topics", prompts_per_subject=count)


def test_each_prompt_is_what_the_template_writes_for_its_question(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for passage in chat_passages(source(2), chats_of(tokenizer)):
        assert passage.messages is not None and passage.response is None
        question = passage.messages[0]["content"]
        assert passage.prompt == f"<user>{question}\n<assistant>"
        assert passage.document.removeprefix("chat-topics/").lower() in question.lower()


def test_a_subject_is_one_document_with_as_many_questions_as_are_asked(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    subjects = {subject for field in FIELDS.values() for subject in field.subjects}
    for count in (1, 8):
        passages = chat_passages(source(count), chats_of(tokenizer))
        assert set(Counter(p.document for p in passages).values()) == {count}
        assert {p.document for p in passages} == {f"chat-topics/{name}" for name in subjects}
        assert {p.category for p in passages} == set(FIELDS)
        assert len({p.key for p in passages}) == len(passages)


def test_the_first_questions_stay_when_more_are_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    few = {p.key for p in chat_passages(source(3), chats_of(tokenizer))}
    assert few < {p.key for p in chat_passages(source(5), chats_of(tokenizer))}


def test_a_quarter_holds_out_more_than_a_hundred_subjects(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    sides = split(chat_passages(source(8), chats_of(tokenizer)), 25.0)
    held_out = {passage.document for passage in sides.held_out}
    assert len(held_out) >= 100
    assert not held_out & {passage.document for passage in sides.training}


def test_a_tokenizer_without_a_template_cannot_ask(tokenizer: PreTrainedTokenizerFast) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(DistillSpecError, match="no chat template"):
        chat_passages(source(1), chats_of(bare))
