"""Keys and values of 0.1 that have a new name: files that use them load for one release.

The first use of an old name in a process prints a note to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.text.foreign import say


class Renamed(NamedTuple):
    """A key of recipes or suites with a new name.

    Attributes:
        section: The sections that lead to it; `*` stands for each element of a list.
        old: The key in 0.1.
        new: The key now.
    """

    section: tuple[str, ...]
    old: str
    new: str


KEYS = (
    Renamed(("distill",), "signal", "target_logits"),
    Renamed(("pair", "endpoint"), "most_unanswered", "max_unanswered"),
    Renamed(("tokenizer",), "train_vocabulary", "vocab_size"),
    Renamed(("methods", "*"), "valve", "fallback"),
)
# Values, by the section and the key that has them.
VALUES = {(("pair",), "tokenizers"): {"bridged": "cross-tokenizer"}}

_noted: set[str] = set()


def renew(data: dict[str, Any], where: str, *, is_stored: bool = False) -> None:
    """Replace old keys and values in a file's values, in place.

    Args:
        data: A recipe or a suite as it was read; a section may be missing or be anything.
        where: The file or override, for notes and errors.
        is_stored: Whether a run has written the file: its user cannot change it, so no note.

    Raises:
        DistillSpecError: An old key and its new name are both given.
    """
    for renamed in KEYS:
        for section, name in _sections(data, renamed.section):
            if renamed.old not in section:
                continue
            old, new = f"{name}.{renamed.old}", f"{name}.{renamed.new}"
            if renamed.new in section:
                raise _both(old, new, where)
            if not is_stored:
                _note(f"{old} is called {new} now", where)
            # Rebuilt in order, so that the new key stands where the old one was.
            items = [(renamed.new if k == renamed.old else k, v) for k, v in section.items()]
            section.clear()
            section.update(items)
    for (path, key), values in VALUES.items():
        for section, name in _sections(data, path):
            old = section.get(key)
            if isinstance(old, str) and old in values:
                section[key] = values[old]
                if is_stored:
                    continue
                _note(f"{name}.{key}: {old} is called {values[old]} now", where)


def renew_override(keys: list[str], value: Any, where: str) -> tuple[list[str], Any]:
    """The keys and the value of an override, with new names."""
    # As nested mappings, which `renew` reads; then the keys are read back.
    data = value
    for key in reversed(keys):
        data = {key: data}
    renew(data, where)
    renewed: list[str] = []
    for _ in keys:
        ((key, data),) = data.items()
        renewed.append(key)
    return renewed, data


def renew_changes(changes: Any, where: str) -> Any:
    """`changes` of a comparison, whose keys are dotted like overrides, with new names."""
    if not isinstance(changes, dict):
        return changes
    renewed: dict[str, Any] = {}
    for dotted, value in changes.items():
        keys, value = renew_override(dotted.split("."), value, where)
        new = ".".join(keys)
        if new != dotted and new in changes:
            raise _both(dotted, new, where)
        renewed[new] = value
    return renewed


def _sections(data: Any, path: tuple[str, ...], name: str = "") -> Iterator[tuple[Any, str]]:
    """The mappings that a path leads to, each with its dotted name."""
    if not path:
        if isinstance(data, dict):
            yield data, name
    elif path[0] == "*" and isinstance(data, list):
        for number, item in enumerate(data):
            yield from _sections(item, path[1:], f"{name}[{number}]")
    elif isinstance(data, dict) and path[0] in data:
        yield from _sections(data[path[0]], path[1:], f"{name}.{path[0]}" if name else path[0])


def _both(old: str, new: str, where: str) -> DistillSpecError:
    return DistillSpecError(
        f"{old} and {new} are both given",
        where=f"{where}: {old}, {new}",
        fix=f"remove {old}",
        why="it is the old name of the same key",
    )


def _note(text: str, where: str) -> None:
    if text not in _noted and os.environ.get("RANK", "0") == "0":
        say(f"note: {where}: {text}; the old name works for one release", sys.stderr)
    _noted.add(text)
