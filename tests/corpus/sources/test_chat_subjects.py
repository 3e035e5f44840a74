from __future__ import annotations

from collections import Counter
from string import Formatter

from distillspec.corpus.sources.chat_subjects import FIELDS


def test_every_subject_is_in_one_field_and_spelled_in_one_line() -> None:
    subjects = Counter(subject for field in FIELDS.values() for subject in field.subjects)
    assert set(subjects.values()) == {1}
    assert all(subject and subject == " ".join(subject.split()) for subject in subjects)


def test_every_question_names_its_subject_once() -> None:
    for field in FIELDS.values():
        assert len(set(field.questions)) == len(field.questions) >= 8
        for question in field.questions:
            names = [name for _, name, _, _ in Formatter().parse(question) if name is not None]
            assert names in ([""], ["", "other"])
