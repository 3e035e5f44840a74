"""`tune` tries what the field offers, and nothing that changes the output."""

from __future__ import annotations

import pytest

from distillspec.methods.candidates import candidates
from distillspec.recipe.suite import Suite


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("takes_trees", [True, False])
def test_the_candidates_are_a_suite_without_a_lossy_method(
    temperature: float, takes_trees: bool
) -> None:
    methods = candidates(temperature, takes_trees=takes_trees)
    suite = Suite(methods=methods)
    assert suite.lossy_methods() == []
    assert all(method.gammas and method.choose is None for method in methods)


def test_gamma_stop_rule_verifier_and_number_of_drafts_are_searched() -> None:
    methods = candidates(1.0, takes_trees=True)
    by_name = {method.name: method for method in methods}
    assert by_name["standard"].gammas == tuple(range(1, 9))
    assert {method.stop.kind for method in methods} == {"fixed", "adaedl", "svip", "confidence"}
    rules = {method.verify.kind for method in methods}
    assert rules == {"token", "block", "kseq", "recursive", "traversal"}
    counts = {m.draft.count for m in methods if m.draft.kind == "sequences"}
    assert counts == {2, 4, 8}


def test_without_randomness_or_trees_what_could_gain_nothing_is_left_out() -> None:
    greedy = candidates(0.0, takes_trees=True)
    assert {(m.draft.kind, m.verify.kind) for m in greedy} == {("chain", "token")}
    chains = candidates(1.0, takes_trees=False)
    assert {m.draft.kind for m in chains} == {"chain"}
    assert {m.verify.kind for m in chains} == {"token", "block"}
