"""YAML to plain Python values and back, without YAML 1.1's surprises.

Numbers and booleans follow YAML 1.2 (`3e-4` is a number, `no` and `2024-01-01` are text), a key
that stands twice is an error, and what is not JSON-like (tags, endless references) is refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from distillspec.errors import DistillSpecError

_DEEPEST = 32  # levels of nesting; a reference to itself would never end

_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_RESOLVERS = (
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("merge", re.compile("^<<$"), ["<"]),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (a table of the class in PyYAML as well)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' stands twice", key.start_mark
                    )
                seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))  # 010 is ten, not eight


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (a table of the class in PyYAML as well)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse(text: str, *, where: str) -> Any:
    """`text` as None, bool, int, float, str, list or dict with text keys.

    where: the file or argument, for errors. Raises DistillSpecError with the line of the fault.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
        _refuse_foreign(value, where, _DEEPEST)
    except yaml.reader.ReaderError as error:
        raise DistillSpecError(
            f"not text: it holds the character {error.character!r}",
            where=where,
            mend="give a YAML file in UTF-8",
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DistillSpecError(
            f"not YAML: {error.problem}", where=f"{where}{line}", mend="mend the text there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DistillSpecError(
            "not YAML that can be read as plain values", where=where, mend="mend the text"
        ) from error
    return value


def write(value: Any) -> str:
    """Plain values as YAML text in block style, keys in their given order."""
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )


def _refuse_foreign(value: Any, where: str, depth: int) -> None:
    if depth == 0:
        raise DistillSpecError(
            f"nested deeper than {_DEEPEST} levels", where=where, mend="remove references to itself"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise DistillSpecError(
            f"the number {value} is not finite", where=where, mend="give a finite number, or null"
        )
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise DistillSpecError(
                    f"the key {key!r} is not text", where=where, mend="put the key in quotes"
                )
            _refuse_foreign(item, where, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_foreign(item, where, depth - 1)
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise DistillSpecError(
            f"a value of type {type(value).__name__} has no place in a recipe",
            where=where,
            mend="use text, numbers, true/false, lists and mappings only, without YAML tags",
        )
