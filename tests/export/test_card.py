from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from distillspec.export.card import CardFacts, draft_card, recommended_gamma
from distillspec.measure.stats.intervals import NOTHING, Interval
from distillspec.measure.summary.cells import Cell
from distillspec.measure.summary.records import DraftComparison, Recommendation, Summary
from tests.measure.missing import NO_NUMBER, without

FACTS = CardFacts(
    name="nano-python draft",
    draft="user/nano-draft",
    base_model="org/base-draft",
    target="org/target",
    num_assistant_tokens=4,
    training="forward KL on draft samples, T = 1, 300 steps",
    licence="apache-2.0",
)


def _cell(draft: str, gamma: int, temperature: float, tau: float, speedup: float) -> Cell:
    return Cell(
        draft=draft, method="standard", gamma=gamma, temperature=temperature, prompts=32, texts=64,
        alpha=Interval(0.6543, 0.64, 0.67), alpha_argmax=Interval(0.5123, 0.5, 0.52),
        tau=Interval(tau, tau - 0.1, tau + 0.1), tau_iid=tau,
        expected_tau=Interval(tau, tau - 0.1, tau + 0.1),
        draft_acceptance=0.6, acceptance_by_position=[0.7, 0.5],
        draft_steps=float(gamma), draft_to_target_time=0.1, v=1.1, predicted_speedup=speedup,
        predicted_from_alpha=speedup, speedup=Interval(speedup, speedup - 0.1, speedup + 0.1),
        speedup_with_prefill=speedup, measured_over_predicted=1.0,
        tokens_per_second=321.0, break_even_alpha=0.3, perfect_draft_cap=3.0,
        perfect_draft_gamma=8, repeated_ngram_share=None,
    )  # fmt: skip


def _comparison(
    verdict: str, temperature: float, gamma: int | None, **changes: object
) -> DraftComparison:
    found = DraftComparison(
        quantity="tau", draft="distilled", against="undistilled", method="standard", gamma=gamma,
        temperature=temperature, prompts=32, value=2.5, against_value=2.0,
        difference=Interval(0.5, 0.4, 0.6), relative=Interval(0.25, 0.2, 0.3),
        verdict=verdict,  # type: ignore[arg-type]
        documents=30,
    )  # fmt: skip
    return replace(found, **changes)  # type: ignore[arg-type]


def _advice(temperature: float | None, gamma: int, speedup: float) -> Recommendation:
    return Recommendation(
        draft="distilled", method="standard", temperature=temperature, gamma=gamma,
        speedup=Interval(speedup, speedup - 0.1, speedup + 0.1), words="",
    )  # fmt: skip


@pytest.fixture
def summary() -> Summary:
    """Distillation helps at T = 1; at T = 0 nothing is shown, and the draft does not pay."""
    cells = [
        _cell(draft, gamma, temperature, tau, speedup)
        for draft, gain in (("undistilled", 0.0), ("distilled", 0.5), ("control", 0.1))
        for gamma, temperature, tau, speedup in (
            (2, 1.0, 1.9 + gain, 1.3 + gain),
            (4, 1.0, 2.0 + gain, 1.4 + gain),
            (2, 0.0, 1.7, 1.01),
            (4, 0.0, 1.8, 0.9),
        )
    ]
    return Summary(
        suite="quick", created="2026-01-01T00:00:00+00:00", prompts=32, texts=64, max_new_tokens=64,
        documents=30, text_documents=60, noise_floor=None, confidence=0.95,
        standard_methods=["standard"], cells=cells, baseline=[],
        ranking=[],
        oracles=[],
        regrets=[],
        categories=[],
        contexts=[],
        comparisons=[
            _comparison("higher", 1.0, 4),
            _comparison("not tested", 1.0, 2, value=77.0),
            _comparison("higher", 1.0, None, quantity="alpha", method=None, against="control"),
            _comparison("no difference shown", 0.0, 2, difference=Interval(0.5, -0.1, 0.2)),
        ],
        recommendation=[_advice(1.0, 4, 1.9), _advice(0.0, 2, 1.01), _advice(None, 4, 1.4)],
        quality=[], greedy_divergences=[], examples=[],
        notes=["Distilled against undistilled: tau is higher."],
        cautions=["the machine was busy"],
        environment={}, definitions={"alpha": "the mean overlap", "tau": "tokens per forward"},
    )  # fmt: skip


def _metadata(card: str) -> dict[str, object]:
    data = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(data, dict)
    return data


# --- metadata ------------------------------------------------------------------------------------


def test_the_metadata_is_what_the_hub_looks_for(summary: Summary) -> None:
    data = _metadata(draft_card(FACTS, summary))
    assert data["base_model"] == "org/base-draft"
    assert data["base_model_relation"] == "finetune"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["license"] == "apache-2.0"
    assert data["tags"] == ["speculative-decoding", "draft-model", "knowledge-distillation"]


def test_huggingface_hub_reads_the_results_back(summary: Summary) -> None:
    card = ModelCard(draft_card(FACTS, summary))
    assert card.data.model_name == FACTS.name
    results = {(r.dataset_config, r.metric_type): r for r in card.data.eval_results or []}
    assert len(results) == 9
    assert results["temperature 1, gamma 4", "acceptance_rate_argmax"].metric_value == 0.5123
    assert results["temperature 1, gamma 4", "speedup"].dataset_args == {"method": "standard"}
    speedup = results["temperature 1, gamma 4", "speedup"]
    assert speedup.metric_value == 1.9
    assert speedup.metric_args == {"interval_low": 1.8, "interval_high": 2.0}
    assert results["temperature 0, gamma 2", "block_efficiency"].metric_value == 1.7


def test_a_local_base_model_is_no_link_of_the_hub(summary: Summary, tmp_path: Path) -> None:
    local = str(tmp_path / "models" / "draft")
    card = draft_card(replace(FACTS, base_model=local), summary)
    assert "base_model" not in _metadata(card)
    assert str(tmp_path) not in card
    assert "`.../models/draft`" in card


def test_a_caution_stands_before_the_numbers(summary: Summary) -> None:
    card = draft_card(replace(FACTS, caution="Take care."), summary)
    assert "## What was measured\n\nTake care." in card


def test_a_derived_draft_names_its_source(summary: Summary) -> None:
    pruned = replace(FACTS, base_model="org/target", start="2 layers of the target")
    card = draft_card(pruned, summary)
    assert "distilled from 2 layers of the target." in card
    assert _metadata(card)["base_model"] == "org/target"
    card = draft_card(replace(FACTS, base_model=None, start="random weights"), summary)
    assert "distilled from random weights." in card
    assert "base_model" not in _metadata(card)


def test_a_number_that_does_not_exist_is_no_result(summary: Summary) -> None:
    cells = [
        replace(c, speedup=NOTHING, tau=NOTHING._replace(value=c.tau.value)) for c in summary.cells
    ]
    text = draft_card(FACTS, replace(summary, cells=cells, recommendation=[]))
    kinds = [r.metric_type for r in ModelCard(text).data.eval_results or []]
    assert sorted(set(kinds)) == [
        "acceptance_rate",
        "acceptance_rate_argmax",
        "block_efficiency",
        "expected_block_efficiency",
    ]
    assert ".nan" not in text.split("---\n")[1]
    assert "not measured" in text


# --- numbers -------------------------------------------------------------------------------------


def test_the_drafts_stand_side_by_side_at_one_gamma(summary: Summary) -> None:
    card = draft_card(FACTS, summary)
    rows = [line for line in card.splitlines() if line.startswith(("| 0 ", "| 1 "))]
    assert [row.split(" | ")[1:4] for row in rows] == [
        ["undistilled", "standard", "2"], ["distilled", "standard", "2"],
        ["control", "standard", "2"], ["undistilled", "standard", "4"],
        ["distilled", "standard", "4"], ["control", "standard", "4"],
    ]  # fmt: skip
    assert (
        "| 1 | distilled | standard | 4 | 0.654 [0.640, 0.670] | 0.512 [0.500, 0.520] | "
        "2.500 [2.400, 2.600] | "
    ) in card
    assert "| 0 | distilled | standard | 2 | 0.654 [0.640, 0.670] | as alpha | " in card
    assert "1.90x [1.80, 2.00] | 321 |" in card


def test_a_gain_is_shown_with_its_interval(summary: Summary) -> None:
    card = draft_card(FACTS, summary)
    assert (
        "T = 1, gamma 4: block efficiency tau of the distilled draft is higher than of the "
        "undistilled draft (2.500 against 2.000; difference 0.500 [0.400, 0.600], "
        "+25.0 % [+20.0 %, +30.0 %])"
    ) in card


def test_an_untested_comparison_is_not_in_the_card(summary: Summary) -> None:
    assert "77.0" not in draft_card(FACTS, summary)


def test_a_comparison_of_alpha_belongs_to_every_gamma(summary: Summary) -> None:
    card = draft_card(FACTS, summary)
    assert (
        "acceptance rate alpha of the distilled draft is higher than of the control draft" in card
    )


def test_a_null_result_is_explicit(summary: Summary) -> None:
    card = draft_card(FACTS, summary)
    assert "**no difference shown** to the undistilled draft" in card


def test_a_draft_without_a_gain_is_named(summary: Summary) -> None:
    card = draft_card(FACTS, summary)
    reported = [line for line in card.splitlines() if "no gain shown" in line]
    assert len(reported) == 1
    assert reported[0].startswith("- T = 0: **no gain shown over decoding without a draft** (1.01x")


def test_too_few_documents_are_no_verdict(summary: Summary) -> None:
    few = [replace(one, verdict="too few documents", documents=3) for one in summary.comparisons]
    card = draft_card(FACTS, replace(summary, comparisons=few))
    assert "is higher than" not in card and "no difference shown" not in card
    assert "3 documents are too few" in card


def test_cautions_and_definitions_are_in_the_card_and_findings_not_twice(
    summary: Summary,
) -> None:
    card = draft_card(FACTS, summary)
    assert "Note: the machine was busy" in card
    assert "tau is higher." not in card
    assert card.count("against undistilled") + card.count("than of the undistilled draft") == 1
    assert "- alpha: the mean overlap." in card


def test_without_advice_the_fastest_cell_is_shown(summary: Summary) -> None:
    card = draft_card(FACTS, replace(summary, recommendation=[]))
    assert "| 1 | distilled | standard | 4 |" in card
    assert "| 0 | distilled | standard | 2 |" in card


def test_without_an_evaluation_the_card_has_no_numbers() -> None:
    card = draft_card(FACTS)
    assert "has not been evaluated" in card
    assert "model-index" not in _metadata(card)


def test_the_recommended_gamma_is_the_one_over_all_temperatures(summary: Summary) -> None:
    assert recommended_gamma(summary) == 4
    assert recommended_gamma(replace(summary, recommendation=[])) is None


@pytest.fixture
def several(summary: Summary) -> Summary:
    """Methods that stand before the standard one, or are faster, and that no engine has."""
    others = [
        replace(_cell("distilled", 8, t, 2.9, speedup), method=method)
        for method, speedup in (("adaedl", 1.11), ("block", 3.9))
        for t in (1.0, 0.0)
    ]
    advice = [
        replace(_advice(t, 8, speedup), method=method)
        for method, speedup in (("adaedl", 1.11), ("block", 3.9))
        for t in (1.0, 0.0, None)
    ]
    return replace(
        summary,
        cells=[*others, *summary.cells],
        recommendation=[*advice, *summary.recommendation],
    )


def test_of_several_methods_the_one_that_engines_run_is_recommended_and_named(
    several: Summary,
) -> None:
    assert recommended_gamma(several) == 4
    card = draft_card(FACTS, several)
    rows = [line for line in card.splitlines() if line.startswith(("| 0 ", "| 1 "))]
    assert len(rows) == 6
    assert all(" | standard | " in row for row in rows)
    assert "All numbers are of the method `standard`" in card
    assert (
        "recommends blocks of 4 tokens: the fastest measured of what transformers and engines run "
        "(method `standard`, suite `quick`, 1.40x [1.30, 1.50] over all its temperatures)."
    ) in card
    assert "adaedl" not in card
    assert "3.90x" not in card
    results = ModelCard(card).data.eval_results or []
    assert {str(result.dataset_args) for result in results} == {"{'method': 'standard'}"}


def test_a_gamma_that_the_recipe_sets_is_not_called_the_fastest(summary: Summary) -> None:
    card = draft_card(replace(FACTS, num_assistant_tokens=7), summary)
    assert (
        "blocks of 7 tokens, as its recipe sets. The fastest measured gamma was 4 (method" in card
    )


def test_without_a_method_of_engines_the_card_has_no_numbers(several: Summary) -> None:
    card = draft_card(FACTS, replace(several, standard_methods=[]))
    assert "Nothing that serving engines run" in card
    assert "| expected tau |" not in card
    assert "model-index" not in _metadata(card)
    assert recommended_gamma(replace(several, standard_methods=[])) is None


def test_the_card_states_that_its_drafts_are_sampled(summary: Summary) -> None:
    card = draft_card(FACTS, summary)
    assert "alpha, tau and speed-up are of *sampled* drafts" in card
    assert '"draft_sample_method":"probabilistic"' in card


# --- foreign text --------------------------------------------------------------------------------

HOSTILE = "a<script>x</script>|`b`\n---\n# [c](d) \x1b[31m"


def test_nothing_foreign_is_read_as_html_or_markdown(summary: Summary) -> None:
    odd = replace(
        summary,
        suite=HOSTILE,
        standard_methods=[HOSTILE],
        cautions=[HOSTILE],
        cells=[replace(cell, method=HOSTILE) for cell in summary.cells],
        recommendation=[replace(one, method=HOSTILE) for one in summary.recommendation],
        comparisons=[],
    )
    facts = CardFacts(
        name=HOSTILE, draft="plain", base_model=HOSTILE, target=HOSTILE, num_assistant_tokens=4,
        training=HOSTILE, start=HOSTILE,
    )  # fmt: skip
    card = draft_card(facts, odd)
    front, text = card.split("\n---\n", 1)
    assert yaml.safe_load(front.removeprefix("---\n"))["model-index"][0]["name"].startswith("a<s")
    assert not any(line in ("---", "...") for line in front.splitlines()[1:])
    said = "".join(part for place, part in enumerate(text.split("\n```")) if place % 2 == 0)
    assert "<" not in said
    assert "\x1b" not in card
    assert said.count("# [c]") == 0
    widths = {line.replace("\\|", "").count("|") for line in said.splitlines() if "| ---" in line}
    rows = {
        line.replace("\\|", "").count("|") for line in said.splitlines() if line.startswith("| ")
    }
    assert rows == widths == {11}


def test_a_path_with_backticks_does_not_end_its_block(summary: Summary) -> None:
    card = draft_card(replace(FACTS, draft="a```b\n````c"), summary)
    assert card.count("\n`````python\n") == 1
    assert card.count("\n`````\n") == 4  # transformers, vLLM, SGLang, llama.cpp


def test_the_card_has_the_launch_line_of_every_engine(summary: Summary) -> None:
    card = draft_card(FACTS, summary)
    for word in ("assistant_model=draft", "vllm serve", "sglang.launch_server", "llama-server"):
        assert word in card
    assert "recommends blocks of 4 tokens" in card


@pytest.mark.parametrize("missing", [math.nan, math.inf])
@pytest.mark.parametrize("bounds_alone", [True, False])
def test_no_number_of_a_card_is_nan(summary: Summary, missing: float, bounds_alone: bool) -> None:
    card = draft_card(FACTS, without(summary, missing, bounds_alone=bounds_alone))
    assert not NO_NUMBER.search(card)
    if bounds_alone:
        assert "0.654 [no interval]" in card
        assert "difference 0.500 [no interval], +25.0 % [no interval]" in card
