"""Chat instructions that every machine has: questions about many subjects, without answers."""

from __future__ import annotations

from distillspec.corpus.sources.chat_subjects import FIELDS, ChatField
from distillspec.corpus.sources.passage import Passage, chat_key, rank
from distillspec.corpus.sources.rows import Chats
from distillspec.recipe.data import ChatTopicsSource


def chat_passages(source: ChatTopicsSource, chats: Chats) -> list[Passage]:
    """At most `prompts_per_subject` questions about each subject, as chats of one turn.

    Which questions a subject gets depends on the subject alone. Its questions are one document, and
    its field is the category.

    Args:
        source: How many questions are asked.
        chats: Renders them with the target's template.

    Raises:
        DistillSpecError: The target's tokenizer has no chat template.
    """
    return [
        _passage(chats, field, subject, question)
        for field, content in FIELDS.items()
        for subject in content.subjects
        for question in _questions(content, subject)[: source.prompts_per_subject]
    ]


def _questions(content: ChatField, subject: str) -> list[str]:
    """All questions about a subject, in an order that differs between subjects."""
    others = [other for other in content.subjects if other != subject]
    asked = sorted(content.questions, key=lambda question: rank(0, f"{subject}: {question}"))
    return [
        _sentence(question.format(subject, other=min(others, key=lambda o: rank(0, subject + o))))
        for question in asked
    ]


def _sentence(text: str) -> str:
    """A subject at the beginning of a question gets a capital letter."""
    return text[0].upper() + text[1:]


def _passage(chats: Chats, field: str, subject: str, question: str) -> Passage:
    messages = ({"role": "user", "content": question},)
    return Passage(
        chat_key("chat-topics", messages, None),
        chats.template.prompt(messages, where="source of kind chat-topics"),
        None,
        "chat",
        category=field,
        messages=messages,
        document=f"chat-topics/{subject}",
    )
