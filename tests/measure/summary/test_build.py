"""The summary of a real tiny evaluation: alpha where it belongs, quality, environment."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from distillspec.measure.evaluation import ROWS
from distillspec.measure.exact.corpus_alpha import acceptance, entropy
from distillspec.measure.exact.target_texts import drawn_texts
from distillspec.measure.summary.build import sum_up
from distillspec.measure.timed.plan import Prepared
from distillspec.measure.timed.rows import CellRow, RowLog
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.speculation.limits import up_to_end
from distillspec.speculation.sampling import SamplingPolicy
from tests.methods.chain_times import chain_times

if TYPE_CHECKING:
    from tests.measured import Measured, Setting


def test_alpha_is_read_on_texts_of_the_target_up_to_their_end(
    setting: Setting, measured: Measured
) -> None:
    for temperature in (0.0, 1.0):
        policy = SamplingPolicy(temperature)
        whole = drawn_texts(
            setting.target, setting.prompts, policy, tokens=12, seed=0, vocab_size=None
        )
        texts = [
            text._replace(response=tuple(up_to_end(text.response, frozenset({0}))[0]))
            for text in whole
        ]
        for draft, model in setting.drafts.items():
            cell = measured.summary.cell(draft, "standard", 3, temperature)
            assert cell is not None
            alpha = acceptance(setting.target, model, texts, policy).mean()
            assert cell.alpha.value == pytest.approx(alpha, abs=1e-6)
        (plain,) = [b for b in measured.summary.baseline if b.temperature == temperature]
        found = entropy(setting.target, texts, policy).mean()
        assert plain.entropy_nats == pytest.approx(found, abs=1e-5)


def test_there_can_be_more_texts_than_decoded_prompts(setting: Setting, measured: Measured) -> None:
    suite, rows = measured.suite, RowLog(measured.folder / ROWS, rows_per_block=8).rows
    steps = chain_times(0.0, 0.01, {1: 0.01, 3: 0.01}, dict.fromkeys(setting.drafts, 0.001))
    summary = sum_up(
        suite,
        rows,
        Prepared({("standard", t): steps for t in suite.temperatures}, {}),
        target=setting.target,
        drafts=setting.drafts,
        tokenizer=setting.tokenizer,
        prompts=setting.prompts,
        text_prompts=[*setting.prompts, *setting.prompts[:2]],
        ends=frozenset({0}),
        vocab_size=None,
    )
    assert (summary.prompts, summary.texts) == (4, 6)
    assert {(cell.prompts, cell.texts) for cell in summary.cells} == {(4, 6)}
    prompts = {(one.quantity, one.prompts) for one in summary.comparisons}
    assert prompts == {("alpha", 6), ("expected tau", 6), ("tau", 4), ("speed", 4)}


def test_alpha_does_not_depend_on_gamma(measured: Measured) -> None:
    alphas = {(c.draft, c.temperature): set() for c in measured.summary.cells}
    for cell in measured.summary.cells:
        alphas[cell.draft, cell.temperature].add(cell.alpha.value)
    assert all(len(values) == 1 for values in alphas.values())


def test_the_distilled_draft_is_compared_with_both_others(measured: Measured) -> None:
    pairs = {(one.draft, one.against) for one in measured.summary.comparisons}
    assert pairs == {("distilled", "undistilled"), ("distilled", "control")}
    by_quantity = [one.quantity for one in measured.summary.comparisons]
    assert (by_quantity.count("alpha"), by_quantity.count("tau")) == (4, 8)


def test_a_draft_near_the_target_is_found_better_than_a_stranger(measured: Measured) -> None:
    for temperature in (0.0, 1.0):
        near = measured.summary.cell("distilled", "standard", 3, temperature)
        far = measured.summary.cell("undistilled", "standard", 3, temperature)
        assert near is not None
        assert far is not None
        assert near.alpha.value > far.alpha.value
        assert near.tau.value > far.tau.value
        assert near.expected_tau.value > far.expected_tau.value


def test_quality_is_scored_for_the_target_alone_and_with_every_draft(measured: Measured) -> None:
    found = [(q.temperature, q.completions_of, q.completions) for q in measured.summary.quality]
    assert found[:2] == [(0.0, "target alone", 8), (0.0, "undistilled", 8)]
    assert len(found) == 2 * 4
    greedy = [q.scores["judged"] for q in measured.summary.quality if q.temperature == 0.0]
    assert len(set(greedy)) == 1


def test_the_environment_names_models_runners_and_machine(measured: Measured) -> None:
    found = measured.summary.environment
    assert found["runners"] == dict.fromkeys(
        ("target", "undistilled", "distilled", "control"), "CausalRunner"
    )
    assert found["models"]["target"]["dtype"] == "float32"
    assert found["models"]["undistilled"]["parameters"] > 0
    assert found["versions"]["torch"]
    assert len(found["processes"]) == 1


def test_falling_back_to_eager_is_a_finding(
    setting: Setting, tiny_suite: Suite, measured: Measured
) -> None:
    steps = chain_times(0.0, 0.01, {1: 0.01, 3: 0.01}, dict.fromkeys(setting.drafts, 0.001))
    prepared = Prepared(
        {(MethodConfig().name, t): steps for t in tiny_suite.temperatures},
        {"target": "BatchedTreeRunner", "distilled": "CausalRunner", "control": "CompiledRunner"},
    )
    suite = tiny_suite.model_copy(
        update={"runner": tiny_suite.runner.model_copy(update={"kind": "compiled"})}
    )
    summary = sum_up(
        suite.model_copy(update={"quality": None}),
        RowLog(measured.folder / ROWS, rows_per_block=8).rows,
        prepared,
        target=setting.target,
        drafts=setting.drafts,
        tokenizer=setting.tokenizer,
        prompts=setting.prompts,
        text_prompts=setting.prompts,
        ends=frozenset({0}),
        vocab_size=None,
    )
    assert any("could not be compiled" in note and "distilled." in note for note in summary.notes)
    assert any("tree mask" in note and "target." in note for note in summary.notes)
    assert not any("started empty" in note for note in summary.notes)
    assert summary.quality == []
    assert set(summary.cautions) < set(summary.notes)
    assert any("could not be compiled" in caution for caution in summary.cautions)
    assert not any("against" in one or "gamma" in one for one in summary.cautions)


def test_an_interruption_that_made_methods_forget_is_a_finding(
    setting: Setting, tiny_suite: Suite, measured: Measured
) -> None:
    named = ["standard@1"]
    methods = [
        {"name": "standard"},
        {"name": "ucb", "choose": {"kind": "ucb", "arms": named}},
        {"name": "windowed", "choose": {"kind": "ucb", "arms": named, "window": 9}},
        {"name": "safe", "stop": {"kind": "adaedl"}, "fallback": {"baseline": "standard@1"}},
    ]
    suite = tiny_suite.model_copy(
        update={
            "methods": tuple(MethodConfig.model_validate(one) for one in methods),
            "quality": None,
            "runner": tiny_suite.runner.model_copy(update={"kind": "eager"}),
        }
    )
    rows = RowLog(measured.folder / ROWS, rows_per_block=8).rows
    steps = chain_times(0.0, 0.01, {1: 0.01, 3: 0.01}, dict.fromkeys(setting.drafts, 0.001))
    prepared = Prepared({(MethodConfig().name, t): steps for t in tiny_suite.temperatures}, {})

    def notes(rows: list[CellRow]) -> list[str]:
        return sum_up(
            suite,
            rows,
            prepared,
            target=setting.target,
            drafts=setting.drafts,
            tokenizer=setting.tokenizer,
            prompts=setting.prompts,
            text_prompts=setting.prompts,
            ends=frozenset({0}),
            vocab_size=None,
        ).notes

    (reported,) = [
        one for one in notes([*rows[:-1], replace(rows[-1], run="2")]) if "started empty" in one
    ]
    assert "in each of 2 processes: windowed, safe." in reported
    assert not any("started empty" in one for one in notes(list(rows)))
