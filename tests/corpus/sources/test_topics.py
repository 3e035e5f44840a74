"""Prose from the interpreter's own help."""

from __future__ import annotations

import importlib

import pytest

from distillspec.corpus.sources import topics
from distillspec.corpus.sources.topics import topic_passages
from distillspec.errors import DistillSpecError
from distillspec.recipe.prompt_plan import PythonTopicsSource

TEXT = """\
Heading
*******

One line of prose, which is followed
by another line of it, and then
by a third one.

   code = "is not prose"
   code += "at all"
   code *= 3

Short one,
of two lines.

Second paragraph that is long
enough to be cut inside, since it
has three lines.
"""


def plan(count: int) -> PythonTopicsSource:
    return PythonTopicsSource(kind="python-topics", prompts_per_topic=count)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("pydoc_data.topics")
    texts = {"one": TEXT, "two": TEXT.replace("Second", "Other"), "code": "   x = 1\n"}
    monkeypatch.setattr(module, "topics", texts)


@pytest.mark.usefixtures("small")
def test_a_prompt_ends_inside_a_paragraph_and_the_response_is_the_rest() -> None:
    made = topic_passages(plan(9), seed=0)
    assert len(made) == 4
    for passage in made:
        assert passage.kind == "prose" and passage.response is not None
        assert passage.prompt + passage.response in (TEXT, TEXT.replace("Second", "Other"))
        assert passage.prompt.rsplit("\n", 1)[1][0].isalpha()
        assert passage.response.split("\n")[1][0].isalpha()
        assert "code" not in passage.prompt.rsplit("\n", 1)[1]


@pytest.mark.usefixtures("small")
def test_topics_come_one_after_another_and_then_again() -> None:
    names = [p.key.partition(":")[0] for p in topic_passages(plan(2), seed=0)]
    assert sorted(names[:2]) == ["python-topics/one", "python-topics/two"]
    assert names[2:] == names[:2]
    assert len(topic_passages(plan(1), seed=0)) == 2


def test_the_real_texts_give_prompts_that_depend_on_the_seed_alone() -> None:
    made = topic_passages(plan(4), seed=0)
    assert len(made) > 100
    assert len({p.key for p in made}) == len(made)
    assert topic_passages(plan(4), seed=0) == made
    assert topic_passages(plan(4), seed=1) != made


def test_a_python_without_the_texts_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(importlib.sys.modules, "pydoc_data.topics", None)  # type: ignore[attr-defined]
    with pytest.raises(DistillSpecError, match="pydoc_data.topics"):
        topics.topics()
