"""A prompt as text, before any tokenizer: what every source of prompts yields."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from distillspec.corpus.sources.python_source import is_held_out

Kind = Literal["function-head", "mid-body", "prose", "plain", "chat"]
Messages = tuple[Mapping[str, Any], ...]
Tools = tuple[Mapping[str, Any], ...]


_SAID = ("role", "name", "content", "reasoning_content", "reasoning", "thinking")


class Passage(NamedTuple):
    """key: names it for ever, unique within its source; prompt and response: whole texts.

    category: what it is about, for reports; None where the source does not say. messages and tools:
    what the template has made the prompt of, where it is a chat; its response is then what the
    template writes, with the end of the turn. document: what it comes from (a file, a conversation,
    a question), whose passages are not independent; "" if it is alone (see `source`).
    """

    key: str
    prompt: str
    response: str | None
    kind: Kind
    category: str | None = None
    messages: Messages | None = None
    tools: Tools | None = None
    document: str = ""

    @property
    def source(self) -> str:
        """Its document; of one that is alone its key without `#n`, which duplicates share."""
        return self.document or self.key.partition("#")[0]


class PassageSplit(NamedTuple):
    training: list[Passage]
    held_out: list[Passage]


def text_key(name: str, prompt: str) -> str:
    """A key made of the source's name and the prompt's text: a row keeps it when rows move."""
    return f"{name}:{hashlib.sha256(prompt.encode()).hexdigest()[:16]}"


def chat_key(name: str, messages: Messages, tools: Tools | None) -> str:
    """As `text_key`, of a chat: by what was said, not by what a template makes of it on one day.

    Ids and times of messages do not count: dumps of the same chat differ in them.
    """
    said: dict[str, Any] = {"messages": [_what_was_said(message) for message in messages]}
    if tools:
        said["tools"] = tools
    return text_key(name, json.dumps(said, sort_keys=True))


def _what_was_said(message: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: message[key] for key in _SAID if message.get(key) is not None}
    if calls := message.get("tool_calls"):
        said["tool_calls"] = [call.get("function", call) for call in calls]
    return said


def with_unique_keys(passages: Iterable[Passage]) -> list[Passage]:
    """The second passage of one key gets `#2`, the third `#3`, and so on."""
    seen: Counter[str] = Counter()
    unique = []
    for passage in passages:
        seen[passage.key] += 1
        times = seen[passage.key]
        unique.append(passage._replace(key=f"{passage.key}#{times}") if times > 1 else passage)
    return unique


def split(passages: Iterable[Passage], held_out_percent: float) -> PassageSplit:
    """By the hash of the document: all passages of one, and duplicates, land on one side.

    A copy of a training prompt in a document that is held out is on neither.
    """
    training: list[Passage] = []
    held_out: list[Passage] = []
    for passage in passages:
        out = is_held_out(passage.source, held_out_percent)
        (held_out if out else training).append(passage)
    read = {passage.prompt for passage in training}
    return PassageSplit(training, [p for p in held_out if p.prompt not in read])


def shuffled(passages: Iterable[Passage], seed: int) -> list[Passage]:
    """In an order that depends on seed and keys alone, so that any first n are a fair sample.

    One of each document, then a second of each, and so on: the first n come from as many documents
    as there are.
    """
    turns: Counter[str] = Counter()
    placed = []
    for passage in sorted(passages, key=lambda p: (rank(seed, p.key), p.key)):
        turns[passage.source] += 1
        placed.append((turns[passage.source], passage))
    return [passage for _, passage in sorted(placed, key=lambda one: one[0])]


def by_category(passages: Iterable[Passage]) -> list[Passage]:
    """One of each category in turn, as long as they last, so that any first n have equal parts.

    Categories come in the order of their first passages, and so do the passages of each.
    """
    groups: dict[str | None, list[Passage]] = {}
    for passage in passages:
        groups.setdefault(passage.category, []).append(passage)
    rounds = zip_longest(*groups.values())
    return [passage for one in rounds for passage in one if passage is not None]


def rank(seed: int, name: str) -> bytes:
    """A place in a seeded order of names, the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
