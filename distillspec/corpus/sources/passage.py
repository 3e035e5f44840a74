"""A prompt and its response as text, before tokenisation; every source yields these."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from distillspec.corpus.sources.code_files import SourceFile, is_held_out

Kind = Literal["function-head", "mid-body", "prose", "plain", "chat"]
Messages = tuple[Mapping[str, Any], ...]
Tools = tuple[Mapping[str, Any], ...]

# Fields of a message that count for the key of a chat.
_CONTENT_FIELDS = ("role", "name", "content", "reasoning_content", "reasoning", "thinking")


class Passage(NamedTuple):
    """A prompt as text.

    Attributes:
        key: Permanent name, unique within its source.
        prompt: The entire prompt.
        response: The entire response; for a chat the template's text with the end of the turn.
        kind: Where the prompt ends, or what it is.
        category: Topic, for reports; None where the source names none.
        messages: The messages of a chat, from which the template has made the prompt.
        tools: The tools that the chat may call.
        document: The file, conversation or question it comes from, whose passages are not
            independent; "" where no other passage comes from it (see `source`).
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
        """The document; where there is none, the key without `#n`, which duplicates share."""
        return self.document or self.key.partition("#")[0]


class PassageSplit(NamedTuple):
    training: list[Passage]
    held_out: list[Passage]


def in_turns(
    files: Sequence[SourceFile],
    per_file: int,
    seed: int,
    passages_of: Callable[[SourceFile, int], Sequence[Passage]],
) -> Iterator[Passage]:
    """At most `per_file` passages per file: first one of each file, then a second of each.

    The order of the files depends on seed and keys alone.

    Args:
        files: The files to cut.
        per_file: Passages per file, at most.
        seed: Decides the order.
        passages_of: The passages of a file, which has this place in the order. It is called when
            the first of them is needed.
    """
    ordered = sorted(files, key=lambda file: (rank(seed, file.key), file.key))
    plans: dict[str, Sequence[Passage]] = {}
    for turn in range(per_file):
        for place, file in enumerate(ordered):
            if turn == 0:
                plans[file.key] = passages_of(file, place)
            if turn < len(plans[file.key]):
                yield plans[file.key][turn]


def text_key(name: str, prompt: str) -> str:
    """A key from the source's name and the prompt's text, which a row keeps when rows move."""
    return f"{name}:{hashlib.sha256(prompt.encode()).hexdigest()[:16]}"


def chat_key(name: str, messages: Messages, tools: Tools | None) -> str:
    """A key from a chat's messages, independent of the template, which may render the date.

    Ids and times of messages do not count, since dumps of the same chat differ in them.
    """
    content: dict[str, Any] = {"messages": [_content(message) for message in messages]}
    if tools:
        content["tools"] = tools
    return text_key(name, json.dumps(content, sort_keys=True))


def _content(message: Mapping[str, Any]) -> dict[str, Any]:
    content = {key: message[key] for key in _CONTENT_FIELDS if message.get(key) is not None}
    if calls := message.get("tool_calls"):
        content["tool_calls"] = [call.get("function", call) for call in calls]
    return content


def with_unique_keys(passages: Iterable[Passage]) -> list[Passage]:
    """Append `#2` to the second passage with the same key, `#3` to the third, and so on."""
    seen: Counter[str] = Counter()
    unique = []
    for passage in passages:
        seen[passage.key] += 1
        times = seen[passage.key]
        unique.append(passage._replace(key=f"{passage.key}#{times}") if times > 1 else passage)
    return unique


def split(passages: Iterable[Passage], held_out_percent: float) -> PassageSplit:
    """Divide passages by the hash of their document, so that a document is on one side only.

    A held-out passage with the prompt of a training passage is left out.
    """
    training: list[Passage] = []
    held_out: list[Passage] = []
    for passage in passages:
        side = held_out if is_held_out(passage.source, held_out_percent) else training
        side.append(passage)
    trained = {passage.prompt for passage in training}
    return PassageSplit(training, [p for p in held_out if p.prompt not in trained])


def shuffled(passages: Iterable[Passage], seed: int) -> list[Passage]:
    """Shuffle passages by seed and keys alone, so that any first n are a fair sample.

    The order takes one passage of each document, then a second of each, and so on. The first n
    passages therefore come from as many documents as possible.
    """
    turns: Counter[str] = Counter()
    by_turn = []
    for passage in sorted(passages, key=lambda p: (rank(seed, p.key), p.key)):
        turns[passage.source] += 1
        by_turn.append((turns[passage.source], passage))
    # The sort is stable: the seeded order remains within each turn.
    return [passage for _, passage in sorted(by_turn, key=lambda item: item[0])]


def by_category(passages: Iterable[Passage]) -> list[Passage]:
    """One passage of each category in turn, so that any first n have equal parts.

    Categories come in the order of their first passages. Within a category the order stays.
    """
    groups: dict[str | None, list[Passage]] = {}
    for passage in passages:
        groups.setdefault(passage.category, []).append(passage)
    rounds = zip_longest(*groups.values())
    return [passage for turn in rounds for passage in turn if passage is not None]


def rank(seed: int, name: str) -> bytes:
    """A sort key that puts names into a seeded order, the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
