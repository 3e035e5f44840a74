from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest

from distillspec.runtime.typed import MistypedError, TypedReader, typed


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Drawing:
    name: str
    points: tuple[Point, ...]
    sizes: dict[int, float] = field(default_factory=dict)
    kind: Literal["line", "area"] = "line"
    parent: Drawing | None = None


def test_records_are_made_of_mappings_and_named_tuples_of_lists_too() -> None:
    value = {
        "name": "a",
        "points": [{"x": 1}, [2, 3.5]],
        "sizes": {"4": 0.5},
        "parent": {"name": "b", "points": []},
    }
    assert typed(Drawing, value) == Drawing(
        "a", (Point(1.0), Point(2.0, 3.5)), {4: 0.5}, "line", Drawing("b", ())
    )


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (int, 3),
        (str, "x"),
        (bool, True),
        (None, None),
        (Any, {"x": [1]}),
        (int | str | None, "x"),
        (list[int] | str, [1]),
        (tuple[int, str], [1, "x"]),
        (dict[str, Any], {"x": 1}),
    ],
)
def test_a_value_of_the_form_passes(form: Any, value: Any) -> None:
    found = typed(form, value)
    assert found == (tuple(value) if isinstance(found, tuple) else value)


@pytest.mark.parametrize(
    ("form", "value", "says"),
    [
        (int, True, "its content must be a whole number, not true or false"),
        (int, 3.0, "its content must be a whole number, not a number"),
        (float, "3", "its content must be a number, not text"),
        (float, None, "its content must be a number, not null"),
        (float, True, "its content must be a number, not true or false"),
        (float, 10**400, "its content must be a number of that size, not a larger one"),
        (str | None, 3, "its content must be text, not a whole number"),
        (list[int], {}, "its content must be a list, not a mapping"),
        (list[int], [1, "x"], "'[1]' must be a whole number, not text"),
        (tuple[int, int], [1], "its content must be a list of 2, not one of 1"),
        (dict[int, int], {"x": 1}, "', a key' must be a whole number, not text"),
        (Drawing, {"name": "a"}, "'points' is missing"),
        (Drawing, {"name": "a", "points": [], "z": 1}, "'z' is not known"),
        (Drawing, {"name": "a", "points": [{"x": 1, "y": None}]}, "'points[0].y' must be a number"),
        (Drawing, {"name": "a", "points": [], "kind": "x"}, "'kind' must be one of line, area"),
        (Drawing, {"name": "a", "points": [], "kind": []}, "'kind' must be one of line, area"),
        (Drawing, {"name": "a", "points": [], "parent": {}}, "'parent.name' is missing"),
        (Drawing, [], "its content must be a mapping, not a list"),
    ],
)
def test_what_differs_is_told_with_its_place(form: Any, value: Any, says: str) -> None:
    with pytest.raises(MistypedError) as caught:
        typed(form, value)
    assert str(caught.value).startswith(says)


def test_null_is_a_number_that_does_not_exist_where_that_is_asked_for() -> None:
    point: Point = typed(Point, {"x": None}, TypedReader(null_is_nan=True))
    assert math.isnan(point.x)


def test_fields_that_earlier_versions_did_not_have_take_what_stands_for_them() -> None:
    found: Drawing = typed(Drawing, {"points": [{}]}, TypedReader(absent={"name": "?", "x": 2.0}))
    assert found == Drawing("?", (Point(2.0),))
