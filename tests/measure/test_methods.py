"""The tables name exactly the kinds that a suite may name."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel

from distillspec.measure.methods import DRAFTS, STOPS, VERIFIERS, block_sizes, configuration
from distillspec.recipe.suite import Method
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.verify.token import verify_token


def kinds(field: str) -> set[str]:
    """All values of `kind` that the schema allows for a part of a method."""
    annotation: Any = Method.model_fields[field].annotation
    plans = get_args(annotation) or (annotation,)
    assert all(issubclass(plan, BaseModel) for plan in plans)
    return {kind for plan in plans for kind in get_args(plan.model_fields["kind"].annotation)}


@pytest.mark.parametrize(
    ("field", "table"), [("draft", DRAFTS), ("stop", STOPS), ("verify", VERIFIERS)]
)
def test_each_kind_of_the_schema_has_its_line_and_no_line_is_unknown_to_it(
    field: str, table: dict[str, object]
) -> None:
    assert table.keys() == kinds(field)


def test_the_default_method_is_standard_speculative_decoding() -> None:
    made = configuration(Method(), 5)
    assert (made.name, made.gamma) == ("standard", 5)
    assert isinstance(made.draft, ChainDraft)
    assert isinstance(made.stop, FixedLength)
    assert made.verify is verify_token


@pytest.mark.parametrize(
    ("gammas", "sizes"),
    [
        ((4,), [1, 5]),
        ((2, 4, 6), [1, 3, 7]),
        (range(1, 9), [1, 3, 6, 9]),
        ((1, 8), [1, 2, 9]),
    ],
)
def test_few_sizes_hold_every_block_with_at_most_two_tokens_of_padding(
    gammas: tuple[int, ...], sizes: list[int]
) -> None:
    assert block_sizes(gammas) == sizes
    for gamma in gammas:
        assert 0 <= min(size for size in sizes if size > gamma) - (gamma + 1) <= 2
