"""Prose that every machine has: Python's language reference, from the interpreter's help.

`pydoc_data.topics` is part of the interpreter. A python-source leaves it out, so that no training
on code has seen it.
"""

from __future__ import annotations

import importlib
import re

from distillspec.corpus.sources.passage import Passage, rank
from distillspec.errors import DistillSpecError
from distillspec.recipe.prompt_plan import PythonTopicsSource

_PARAGRAPH = re.compile(r"(?:^[^\s*=~+\"-].*\n?){3,}", re.MULTILINE)  # no code, lists, headings


def topics() -> dict[str, str]:
    """The texts of the language reference by topic; a DistillSpecError if it is not installed."""
    try:
        module = importlib.import_module("pydoc_data.topics")
    except ImportError as error:
        raise DistillSpecError(
            "this Python lacks the texts of its help (pydoc_data.topics)",
            where="source of kind python-topics or adversarial",
            fix="install the entire standard library, or take prose from a jsonl source",
        ) from error
    return dict(module.topics)


def topic_passages(source: PythonTopicsSource, seed: int) -> list[Passage]:
    """At most `prompts_per_topic` passages per topic: first one of each, then a second of each.

    A prompt is a topic from its beginning to a line inside a paragraph, so that prose follows. The
    response is the rest of the topic. The choice and the order depend on the seed alone.
    """
    texts = topics()
    plans = {
        name: _ends(name, texts[name], source.prompts_per_topic, seed)
        for name in sorted(texts, key=lambda name: (rank(seed, name), name))
    }
    return [
        Passage(
            f"python-topics/{name}:{ends[turn]}",
            texts[name][: ends[turn]],
            texts[name][ends[turn] :],
            "prose",
            document=f"python-topics/{name}",
        )
        for turn in range(source.prompts_per_topic)
        for name, ends in plans.items()
        if turn < len(ends)
    ]


def _ends(name: str, text: str, count: int, seed: int) -> list[int]:
    """Ends of lines that are not the last of their paragraph, at most one per paragraph."""
    ends = []
    for paragraph in _PARAGRAPH.finditer(text):
        breaks = [paragraph.start() + m.start() for m in re.finditer("\n", paragraph[0].rstrip())]
        ends.append(min(breaks, key=lambda end: rank(seed, f"{name}:{end}")))
    return sorted(ends, key=lambda end: rank(seed, f"{name}@{end}"))[:count]
