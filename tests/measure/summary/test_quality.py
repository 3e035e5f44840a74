"""Our metric modules, through the `evaluate` library, loaded by path and offline."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.summary.quality import Completion, name_of, score

METRICS = Path(__file__).parents[3] / "eval" / "metrics"
PARSES = str(METRICS / "parses")
EXACT = str(METRICS / "exact_match_text")
HEAD = 'def add(one, other):\n    """Add them."""\n'


def parses(completion: str, prompt: str = HEAD, *, finished: bool = False) -> dict[str, float]:
    return score(PARSES, [Completion(prompt, completion, finished, None)])


@pytest.mark.parametrize(
    "completion",
    [
        "    return one + other\n",
        "    return one + other\n\n\ndef sub(one, oth",
        "    if one:\n",
        "    try:\n        x = 1\n",
        "    x = [\n        1,\n        2,\n",
        '    text = """a\n   b\n',
        "    return (\n        one\n        +",
        "    x = r'\\d'\n    y = '\\d'\n",
    ],
)
def test_a_valid_beginning_of_a_program_parses(completion: str) -> None:
    assert parses(completion) == {"parses": 1.0, "judged": 1.0}


@pytest.mark.parametrize(
    "completion",
    [
        "    return one other\n",
        "    x = (1]\n",
        "    if one\n        pass\n",
        "  return one\n      return other\n",
        "    x = 'abc\n    y = 1\n",
        "    x = = 3\n    return (\n",
        "    foo(\n        a,\n        b c\n",
    ],
)
def test_a_broken_line_does_not(completion: str) -> None:
    assert parses(completion) == {"parses": 0.0, "judged": 1.0}


def test_the_unfinished_last_line_is_not_held_against_a_completion() -> None:
    assert parses("    x = 1\n    y = = ")["parses"] == 1.0
    assert parses("    x = 1\n    y = = ", finished=True)["parses"] == 0.0


def test_a_completion_within_its_first_line_is_not_judged() -> None:
    found = parses("    return one +")
    assert found["judged"] == 0
    assert math.isnan(found["parses"])
    assert parses("")["judged"] == 0


def test_a_prompt_may_begin_inside_a_block_or_a_text() -> None:
    inside = "        self.x = x\n    def f(self):\n        return "
    assert parses("self.x\n", prompt=inside)["parses"] == 1.0
    assert parses("self x\n", prompt=inside)["parses"] == 0.0
    assert parses("1\n", prompt="rest of a docstring.\n'''\nx = ")["judged"] == 1


def test_shares_are_over_what_was_judged() -> None:
    some = [
        Completion(HEAD, text, False, None)
        for text in ("    return 1\n", "    return 1 2\n", "    ret")
    ]
    assert score(PARSES, some) == {"parses": 0.5, "judged": 2.0}


def test_exact_match_asks_only_where_there_is_a_reference() -> None:
    some = [
        Completion("", "return  a\n", False, "return a"),
        Completion("", "\nreturn a\nb = 2", False, "return a\nb = 3"),
        Completion("", "x", False, "y"),
        Completion("", "x", False, None),
    ]
    assert score(EXACT, some) == pytest.approx(
        {"exact_match": 1 / 3, "exact_match_line": 2 / 3, "judged": 3}
    )
    assert score(EXACT, some[3:]) == {}


def test_a_metric_may_be_named_by_its_file() -> None:
    path = str(METRICS / "parses" / "parses.py")
    assert score(path, [Completion(HEAD, "    pass\n", False, None)])["parses"] == 1.0
    assert name_of(path) == name_of(PARSES) == "parses"


def test_a_missing_metric_is_the_users_error() -> None:
    with pytest.raises(DistillSpecError, match="no metric module"):
        score("eval/metrics/absent", [])


def test_a_module_that_is_no_metric_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("x = 1\n")
    with pytest.raises(DistillSpecError, match="cannot be loaded"):
        score(str(tmp_path / "odd.py"), [])


def test_a_metric_with_an_unknown_column_is_an_error(tmp_path: Path) -> None:
    source = (METRICS / "parses" / "parses.py").read_text()
    (tmp_path / "odd2.py").write_text(source.replace('"prompts"', '"sources"'))
    with pytest.raises(DistillSpecError, match="sources"):
        score(str(tmp_path / "odd2.py"), [])
