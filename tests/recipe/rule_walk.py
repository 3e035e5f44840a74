"""Files that hold the example of a rule, to walk the table of incompatible settings with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe import yaml_text
from distillspec.recipe.incompatible import TABLE, Incompatible
from distillspec.recipe.loading import load_recipe, load_suite
from distillspec.recipe.rule import Rule

_ROWS = {"kind": "jsonl", "path": "d.jsonl"}
_RECIPE: dict[str, Any] = {"pair": {"target": "t", "draft": "d"}, "data": {"source": _ROWS}}
_PRETRAIN: dict[str, Any] = {
    "kind": "pretrain",
    "output": "o",
    "corpus": _ROWS,
    "tokenizer": {"vocab_size": 300},
    "model": {"hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2},
}
_SUITE: dict[str, Any] = {"methods": [{"name": "standard"}, {"name": "mine"}]}


def changed(values: dict[str, Any], section: str, changes: Any) -> dict[str, Any]:
    """`values` with the changes of a section, of which None removes a key."""
    values = copy.deepcopy(values)
    place: Any = values
    for part in filter(None, section.replace("methods[]", "methods.1").split(".")):
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = place
        for name in sections:
            inner = inner.setdefault(name, {})
        inner.pop(last, None)
        if value is not None:
            inner[last] = value
    return values


def load(entry: Incompatible, folder: Path, values: dict[str, Any]) -> None:
    path = folder / "file.yaml"
    path.write_text(yaml_text.write(values), encoding="utf-8")
    if entry.kind == "suite":
        load_suite(path)
    else:
        load_recipe(path)


BASES = {"recipe": _RECIPE, "suite": _SUITE, "pretrain": _PRETRAIN}


def entries(*rules: tuple[Rule, ...]) -> list[Incompatible]:
    """The table's entries of these rules; the table has each of them."""
    wanted = [rule for some in rules for rule in some]
    matches = [entry for entry in TABLE if any(entry.rule is rule for rule in wanted)]
    assert len(matches) == len(wanted)
    return matches


def name(entry: Incompatible) -> str:
    return " x ".join(entry.keys)


def check(entry: Incompatible, folder: Path) -> None:
    """The example is refused with its keys, and accepted with the fix applied."""
    refused = changed(BASES[entry.kind], entry.section, entry.rule.example)
    with pytest.raises(DistillSpecError) as caught:
        load(entry, folder, refused)
    error = caught.value
    keys = ", ".join(entry.keys).replace("methods[]", "methods[1]")
    assert error.where == f"{folder / 'file.yaml'}: {keys}"
    assert error.what.startswith(entry.rule.what)
    assert (error.fix, error.why) == (entry.rule.fix, entry.rule.why)
    load(entry, folder, changed(refused, entry.section, entry.rule.fixed))
