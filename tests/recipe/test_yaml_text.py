from __future__ import annotations

from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe import yaml_text
from distillspec.text.foreign import visible


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("-2E5", -2e5),
        (".5", 0.5),
        ("010", 10),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("0x1F", "0x1F"),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ("[a, 1]", ["a", 1]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    parsed = yaml_text.parse(text, where="f")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "3e-4", "no", "true", "null", "010", "1.5", "", "~", "**/*.py", "a: b", "# c", "é", " x ",
        "two\nlines\n", "<<", 3e-5, 1e22, 0.1, 7, -1, True, None, [], {}, "long " * 60,
        [{"a": 1, "b": {"c": ["x", None]}}],
    ],
)  # fmt: skip
def test_what_is_written_reads_back_identically(value: object) -> None:
    text = yaml_text.write({"key": value})
    back = yaml_text.parse(text, where="f")
    assert back == {"key": value}
    assert type(back["key"]) is type(value)


def test_anchors_and_merges_work() -> None:
    parsed = yaml_text.parse("a: &a {x: 1, y: 1}\nb:\n  <<: *a\n  y: 2\n", where="f")
    assert parsed["b"] == {"x": 1, "y": 2}


def refused(text: str) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        yaml_text.parse(text, where="f.yaml")
    return caught.value


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x: 0\n\n{a: 1, a: 2}", "a: [1", "a: b: c"])
def test_a_fault_of_syntax_names_its_line(text: str) -> None:
    assert refused(text).where.startswith("f.yaml, line ")


def test_a_key_that_stands_twice_is_named_with_the_second_line() -> None:
    error = refused("a: 1\nb: {c: 1}\na: 3\n")
    assert "'a' stands twice" in error.what
    assert error.where == "f.yaml, line 3, column 1"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &x [*x]", "nested deeper"),
        ("a: " + "[" * 1500, "plain values"),
        ("1: a", "the key 1 is not text"),
        ("a: .inf", "not finite"),
        ("a: !!set {b}", "the tag tag:yaml.org,2002:set"),
        ("a: !!python/object:os.system x", "the tag"),
        ("a: !!bool maybe", "the tag"),
        ("a: !!float ''", "the tag"),
        ("a: !!timestamp x", "the tag"),
        ("a: !!str 1", "the tag"),
        ("a: !x 1", "the tag !x"),
        ("a: \x00", "not text"),
        ("a\n---\nb", "another document"),
        ("a: " + "1" * 5000, "too many digits"),
        ("? [a]\n: b\n", "unhashable key"),
        ('a: "\\ud800"', "U+D800"),
        ('"\\0": 1', "U+0000"),
        ("a: " + "x" * 1_000_001, "too many for settings"),
        ("a: [" + "x, " * 20_000 + "]", "more than 20,000 values"),
    ],
)
def test_what_is_not_plain_values_is_refused(text: str, what: str) -> None:
    assert what in refused(text).what


def _laughs(of: str, merge: str = "") -> str:
    """332 bytes or so that come to 10^9 values."""
    first = "a: &a {x: 1}\n" if merge else "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    more = [
        f"{after}: &{after} " + of.format(",".join([f"*{before}"] * 10))
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return first + "\n".join(more) + "\n"


def test_aliases_that_come_to_many_values_are_refused_before_they_are_expanded() -> None:
    assert "with all that aliases repeat" in refused(_laughs("[{}]")).what
    assert "with all that aliases repeat" in refused(_laughs("{{<<: [{}]}}", "merge")).what


def test_aliases_may_not_nest_deeper_than_what_is_written() -> None:
    tower = "[" * 20 + "{}" + "]" * 20
    text = "a: &a " + tower.format(1) + "\nb: &b " + tower.format("*a") + "\n"
    assert "nested deeper" in refused(text).what


def test_a_byte_order_mark_is_passed_over() -> None:
    assert yaml_text.parse("\ufeffa: 1", where="f") == {"a": 1}


def test_what_reorders_text_is_written_as_an_escape_and_reads_back() -> None:
    value = {"a\u200b": ["\u202eabc", "plain", "\x1b[31m", "\U000e0041"]}
    text = yaml_text.write(value)
    assert visible(text) == text and "\\u202e" in text
    assert yaml_text.parse(text, where="f") == value


def test_writing_keeps_the_order_of_keys() -> None:
    value: dict[str, Any] = {"z": 1, "a": {"y": [1], "b": 2}}
    text = yaml_text.write(value)
    assert text.index("z:") < text.index("a:")
    assert list(yaml_text.parse(text, where="f")["a"]) == ["y", "b"]
