"""A rule about settings that cannot be combined, and the error of a section that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """Settings of one section that cannot be combined.

    Attributes:
        keys: The keys in conflict, counted from the section that has the rule.
        is_broken: Whether a section breaks the rule.
        what: The conflict, in one line.
        fix: The change that ends the conflict.
        why: The reason of the rule.
        example: Settings that break it, by key.
        fixed: What the fix sets in the example, by key; None removes the key.
        values: The values in conflict in words, for `what`; None where `what` names them.
    """

    keys: tuple[str, ...]
    is_broken: Callable[[Any], bool]
    what: str
    fix: str
    why: str
    example: Mapping[str, Any]
    fixed: Mapping[str, Any]
    values: Callable[[Any], str] | None = None


class RefusedError(ValueError):
    """A broken rule; pydantic hands it on, and `complaint` makes the user's error of it.

    Attributes:
        what: The conflict, in one line.
        keys: The keys in conflict, counted from the section that raised it.
        fix: The change that ends the conflict.
        why: The reason of the rule, where `what` does not give it.
    """

    def __init__(self, what: str, *, keys: Iterable[str], fix: str, why: str | None = None) -> None:
        super().__init__(f"{what}: {fix}")
        self.what, self.keys, self.fix, self.why = what, tuple(keys), fix, why


def check_rules(
    section: object, rules: Iterable[Rule], key_in_file: Callable[[str], str] = str
) -> None:
    """Refuse a section that breaks a rule.

    Args:
        section: The settings.
        rules: Checked in this order.
        key_in_file: The key under which the user sets a key of the section.

    Raises:
        RefusedError: Of the first rule that is broken.
    """
    for rule in rules:
        if rule.is_broken(section):
            values = "" if rule.values is None else f" ({rule.values(section)})"
            keys = map(key_in_file, rule.keys)
            raise RefusedError(rule.what + values, keys=keys, fix=rule.fix, why=rule.why)
