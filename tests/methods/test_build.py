"""The tables name exactly the kinds that a suite may name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel

from distillspec.methods.build import (
    DRAFTS,
    STOPS,
    VERIFIERS,
    block_sizes,
    configuration,
    draft_block_sizes,
    drafts_by_entropy,
    graph_sizes,
    max_drafted,
    max_slots,
    models,
)
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.speculation.draft.calibrated import CalibratedAdaEDL
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.entropy import AdaEDL
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.recursive import verify_recursive, verify_recursive_distinct
from distillspec.speculation.verify.token import verify_token
from tests.methods.chain_times import chain_times


def kinds(field: str) -> set[str]:
    """All values of `kind` that the schema allows for a part of a method."""
    return set(_kinds(MethodConfig.model_fields[field].annotation))


def _kinds(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from get_args(annotation.model_fields["kind"].annotation)
    for part in get_args(annotation):
        yield from _kinds(part)


@pytest.mark.parametrize(
    ("field", "table"),
    [("draft", DRAFTS), ("stop", STOPS), ("verify", VERIFIERS)],
)
def test_each_kind_of_the_schema_has_its_line_and_no_line_is_unknown_to_it(
    field: str, table: dict[str, object]
) -> None:
    assert table.keys() == kinds(field)


SUITE = Suite.model_validate(
    {
        "gammas": [2, 4],
        "methods": [
            {"name": "standard"},
            {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": [8]},
            {
                "name": "spectr",
                "draft": {"kind": "sequences", "count": 3},
                "verify": {"kind": "kseq"},
                "gammas": [4],
            },
            {"name": "ucb", "choose": {"kind": "ucb", "arms": ["standard", "spectr@2"]}},
            {"name": "exp3", "choose": {"kind": "exp3", "arms": ["adaedl"], "reward": "tokens"}},
        ],
    }
)


def test_graphs_fit_blocks_that_may_end_early_and_trees_that_share() -> None:
    blocks, trees, rows = graph_sizes(SUITE)
    assert blocks == [1, 5, 9]
    assert trees == [4, 7, 13]  # of 3 sequences of 4 and of 2 tokens, full and half size
    assert rows == [3]
    assert max_slots(SUITE) == 12


def test_the_verifier_of_distinct_sequences_knows_that_they_are() -> None:
    for distinct, rule in ((True, verify_recursive_distinct), (False, verify_recursive)):
        method = MethodConfig.model_validate(
            {
                "draft": {"kind": "sequences", "distinct": distinct},
                "verify": {"kind": "recursive"},
            }
        )
        assert configuration(method, 2).verify is rule


def test_the_default_method_is_standard_speculative_decoding() -> None:
    made = configuration(MethodConfig(), 5)
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


def test_slots_are_what_stands_beyond_the_text() -> None:
    suite = Suite.model_validate(
        {
            "gammas": [3],
            "methods": [
                {"name": "standard"},
                {
                    "name": "spectr",
                    "draft": {"kind": "sequences", "count": 4},
                    "verify": {"kind": "kseq"},
                },
                {"name": "card", "parallel": {"kind": "card", "nodes": 3, "layers": 5}},
                {"name": "pearl", "parallel": {"kind": "pearl"}, "gammas": [4]},
            ],
        }
    )
    drafted_by_method = [
        (method.name, gamma, drafted) for method, gamma, drafted in max_drafted(suite)
    ]
    assert drafted_by_method == [
        ("standard", 3, 3),
        ("spectr", 3, 12),
        ("card", 3, 15),
        ("pearl", 4, 8),
    ]
    assert max_slots(suite) == 15


SEVERAL = Suite.model_validate(
    {
        "drafts": ["distilled"],
        "gammas": [2, 4],
        "methods": [
            {"name": "standard"},
            {"name": "weak", "draft": {"kind": "chain", "model": "undistilled"}, "gammas": [6]},
            {"name": "lookup", "draft": {"kind": "lookup", "longest": 2}, "gammas": [8]},
            {"name": "two", "choose": {"kind": "ucb", "arms": ["standard", "weak"]}},
            {"name": "free", "choose": {"kind": "ucb", "arms": ["standard@2", "lookup"]}},
            {
                "name": "hedge",
                "choose": {
                    "kind": "hedge",
                    "arms": ["standard", "weak", "lookup"],
                    "memory": "prompt",
                },
            },
            {
                "name": "guarded",
                "choose": {"kind": "ucb", "arms": ["lookup"]},
                "fallback": {"baseline": "weak@2"},
            },
        ],
    }
)
BY_NAME = {method.name: method for method in SEVERAL.methods}


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        ("standard", ["distilled"]),
        ("weak", ["undistilled"]),
        ("lookup", []),
        ("two", ["distilled", "undistilled"]),
        ("free", ["distilled"]),
        ("guarded", ["undistilled"]),
    ],
)
def test_a_method_needs_the_models_that_its_rounds_draft_with(
    method: str, needs: list[str]
) -> None:
    assert models(SEVERAL, BY_NAME[method], "distilled") == needs


def test_drafts_that_may_rest_get_graphs_for_what_they_miss() -> None:
    assert draft_block_sizes(SUITE) == [1, 2]
    assert draft_block_sizes(SEVERAL) == [1, 2, 7, 9]


def test_a_chain_that_stops_by_its_entropy_gets_a_graph_that_computes_it() -> None:
    def suite(**method: object) -> Suite:
        return Suite.model_validate({"gammas": [8], "methods": [{"name": "one", **method}]})

    assert drafts_by_entropy(suite(stop={"kind": "adaedl"}))
    assert drafts_by_entropy(suite(stop={"kind": "svip"}))
    assert not drafts_by_entropy(suite(stop={"kind": "confidence"}))
    sequences = {"kind": "sequences", "count": 2}
    several = suite(stop={"kind": "adaedl"}, draft=sequences, verify={"kind": "kseq"})
    assert not drafts_by_entropy(several)


def test_what_drafts_nothing_needs_no_graph_and_no_room() -> None:
    method = {"name": "plain", "draft": {"kind": "none"}}
    suite = Suite.model_validate({"gammas": [8], "methods": [method]})
    assert graph_sizes(suite) == ([1], [], [])
    assert max_slots(suite) == 0
    assert suite.of(suite.methods[0]) == (1,)
    assert models(suite, suite.methods[0], "distilled") == []


def test_a_draft_beside_an_arm_that_drafts_nothing_may_rest() -> None:
    methods = [
        {"name": "standard", "gammas": [6]},
        {"name": "plain", "draft": {"kind": "none"}},
        {"name": "ucb", "choose": {"kind": "ucb", "arms": ["standard", "plain"]}},
    ]
    assert draft_block_sizes(Suite.model_validate({"methods": methods})) == [1, 2, 7]


def test_lookups_may_end_early_and_get_graphs_of_half_the_size() -> None:
    for draft, sizes in (("lookup", [1, 5, 9]), ("chain", [1, 9])):
        suite = Suite.model_validate({"gammas": [8], "methods": [{"draft": {"kind": draft}}]})
        assert graph_sizes(suite)[0] == sizes


def test_adaedl_follows_costs_unless_its_published_settings_are_given() -> None:
    def made(draft: str = "chain", **stop: Any) -> StopRule:
        verify = {"kind": "token" if draft == "chain" else "kseq"}
        plan = {"draft": {"kind": draft}, "stop": {"kind": "adaedl", **stop}, "verify": verify}
        return configuration(MethodConfig.model_validate(plan), 4).stop

    assert isinstance(made(), CalibratedAdaEDL)
    assert isinstance(made(rule="calibrated"), CalibratedAdaEDL)
    for published in (
        made(rule="published"),
        made(threshold=0.3),
        made(wanted_rate=0.9),
        made("sequences"),
    ):
        assert isinstance(published, AdaEDL)
    assert made(threshold=0.3).state() == [0.3, 0.9]


def test_adaedl_takes_the_times_of_its_own_draft() -> None:
    """One token is all that pays where a draft step costs as much as the target's."""
    method = MethodConfig.model_validate({"name": "adaedl", "stop": {"kind": "adaedl"}})
    steps = chain_times(1.0, 1.0, {4: 1.1}, {"slow": 1.0, "fast": 0.001})
    sure, policy = torch.tensor([9.0, 0.0, 0.0]), SamplingPolicy()
    for draft, stops in (("slow", True), ("fast", False)):
        rule = configuration(method, 4, draft, steps).stop
        rule.begins(sure, policy)
        assert rule.stops_after(sure, torch.tensor(0), policy) is stops
