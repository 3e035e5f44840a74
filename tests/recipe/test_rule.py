from __future__ import annotations

import pytest

from distillspec.recipe.rule import RefusedError, Rule, check_rules


def rule(key: str, limit: int) -> Rule:
    return Rule(
        keys=(key,),
        is_broken=lambda value: value > limit,
        what=f"{key} is too large",
        fix=f"lower {key}",
        why="because",
        example={},
        fixed={},
        values=lambda value: f"{value} > {limit}",
    )


def test_the_first_broken_rule_is_raised_with_its_values() -> None:
    check_rules(1, [rule("a", 3), rule("b", 1)])
    with pytest.raises(RefusedError) as caught:
        check_rules(2, [rule("a", 3), rule("b", 1), rule("c", 1)])
    error = caught.value
    assert (error.what, error.keys) == ("b is too large (2 > 1)", ("b",))
    assert (error.fix, error.why) == ("lower b", "because")
    assert str(error) == "b is too large (2 > 1): lower b"
