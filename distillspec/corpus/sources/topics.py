"""Prose that is on every machine: Python's language reference, as the interpreter's help shows it.

`pydoc_data.topics` comes with the interpreter. No python-source takes it, so no training on code
has seen it.
"""

from __future__ import annotations

import importlib
import re

from distillspec.corpus.sources.passage import Passage, rank
from distillspec.errors import DistillSpecError
from distillspec.recipe.prompt_plan import PythonTopicsSource

_PARAGRAPH = re.compile(r"(?:^[^\s*=~+\"-].*\n?){3,}", re.MULTILINE)  # no code, lists, headings


def topics() -> dict[str, str]:
    """The texts of the language reference by topic; DistillSpecError where it is not installed."""
    try:
        found = importlib.import_module("pydoc_data.topics")
    except ImportError as error:
        raise DistillSpecError(
            "this Python has come without the texts of its help (pydoc_data.topics)",
            where="source of kind python-topics or adversarial",
            fix="install the whole standard library, or take prose from a jsonl source",
        ) from error
    return dict(found.topics)


def topic_passages(source: PythonTopicsSource, seed: int) -> list[Passage]:
    """At most `prompts_per_topic` passages a topic: one of each, then a second of each, and so on.

    A prompt is a topic from its beginning to a line inside a paragraph, so that prose goes on; the
    response is the rest of the topic. Which ones, and their order, depends on the seed alone.
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
    """Ends of lines that are not the last of their paragraph, at most one of a paragraph."""
    ends = []
    for paragraph in _PARAGRAPH.finditer(text):
        breaks = [paragraph.start() + m.start() for m in re.finditer("\n", paragraph[0].rstrip())]
        ends.append(min(breaks, key=lambda end: rank(seed, f"{name}:{end}")))
    return sorted(ends, key=lambda end: rank(seed, f"{name}@{end}"))[:count]
