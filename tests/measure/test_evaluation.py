"""The grid on a tiny real pair: complete, interleaved, resumable, and right at the ends."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.evaluation import ROWS, SUMMARY, evaluate
from distillspec.measure.timed.audit import AUDIT
from distillspec.measure.timed.audit import read as read_audit
from distillspec.measure.timed.rows import FATES
from distillspec.recipe.suite import Suite
from distillspec.report.page import write_report

if TYPE_CHECKING:
    from tests.measured import Measured, Setting

REQUIRED = [
    "draft",
    "method",
    "gamma",
    "temperature",
    "prompts",
    "alpha",
    "tau",
    "draft_to_target_time",
    "predicted_speedup",
    "speedup",
    "speedup_low",
    "speedup_high",
    "tokens_per_second",
    "tau_low",
    "tau_high",
    "alpha_low",
    "alpha_high",
    "draft_acceptance",
    "acceptance_by_position",
    "v",
    "break_even_alpha",
    "perfect_draft_cap",
    "repeated_ngram_share",
]


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]


def decoded(folder: Path) -> dict[tuple[Any, ...], list[int]]:
    """Tokens by prompt and cell, in any order of timing."""
    names = ("prompt", "temperature", "draft", "gamma", "repeat")
    return {tuple(row[name] for name in names): row["tokens"] for row in rows_in(folder)}


def test_there_is_a_row_per_prompt_and_cell_and_a_baseline_around_each_block(
    measured: Measured,
) -> None:
    rows = rows_in(measured.folder)
    per_block = 3 * 2 + 2
    assert len(rows) == 4 * 2 * per_block
    for start in range(0, len(rows), per_block):
        block = rows[start : start + per_block]
        assert len({(row["prompt"], row["temperature"], row["run"]) for row in block}) == 1
        assert [row["place"] for row in block] == list(range(per_block))
        assert [row["draft"] is None for row in block] == [True, *[False] * 6, True]


def test_the_order_of_the_cells_rotates_from_block_to_block(measured: Measured) -> None:
    first = [(r["draft"], r["gamma"]) for r in rows_in(measured.folder) if r["place"] == 1]
    assert len(set(first)) == 6


def test_all_texts_have_equal_lengths(measured: Measured) -> None:
    assert {len(row["tokens"]) for row in rows_in(measured.folder)} == {12}
    assert all(len(row["fates"]) == 12 for row in rows_in(measured.folder))


def test_every_cell_of_the_summary_has_the_promised_keys(measured: Measured) -> None:
    summary = json.loads((measured.folder / SUMMARY).read_text())
    assert len(summary["cells"]) == 3 * 2 * 2
    for cell in summary["cells"]:
        assert set(REQUIRED) <= cell.keys()
        assert 1.0 <= cell["tau"] <= cell["gamma"] + 1
        assert cell["tau_low"] <= cell["tau"] <= cell["tau_high"]
        assert cell["speedup_low"] <= cell["speedup"] <= cell["speedup_high"]
        assert 0.0 <= cell["alpha"] <= 1.0


def test_greedy_speculative_texts_are_the_baselines(measured: Measured) -> None:
    rows = [row for row in rows_in(measured.folder) if row["temperature"] == 0.0]
    assert len({(row["prompt"], tuple(row["tokens"])) for row in rows}) == 4
    assert measured.summary.greedy_divergences == []


def test_each_prompt_and_cell_has_a_random_stream_of_its_own(measured: Measured) -> None:
    texts = [tuple(r["tokens"]) for r in rows_in(measured.folder) if r["temperature"] == 1.0]
    assert len(set(texts)) > len(texts) // 2


def test_a_draft_that_is_the_target_is_always_accepted(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    arguments = {**setting.arguments(), "drafts": {"distilled": setting.target}}
    summary = evaluate(tiny_suite, folder=tmp_path, **arguments)
    for cell in summary.cells:
        assert cell.alpha.value == pytest.approx(1.0, abs=1e-5)
        assert cell.tau.value == cell.gamma + 1
        assert cell.acceptance_by_position == [1.0] * cell.gamma


def test_an_interrupted_evaluation_goes_on_and_equals_the_uninterrupted_one(
    setting: Setting, tiny_suite: Suite, measured: Measured, tmp_path: Path
) -> None:
    lines = (measured.folder / ROWS).read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:16])
    (tmp_path / ROWS).write_bytes(kept + b"".join(lines[16:20]) + lines[20][:40])
    for name in ("plan.json", "chooser_state.json"):
        (tmp_path / name).write_bytes((measured.folder / name).read_bytes())
    summary = evaluate(tiny_suite, folder=tmp_path, **setting.arguments())
    assert (tmp_path / ROWS).read_bytes().startswith(kept)
    assert decoded(tmp_path) == decoded(measured.folder)
    for name in ("tau", "alpha"):  # as text: bounds of few documents are NaN
        values = [repr(getattr(cell, name)) for cell in summary.cells]
        assert values == [repr(getattr(cell, name)) for cell in measured.summary.cells]


def test_a_finished_evaluation_is_not_timed_again(
    setting: Setting, tiny_suite: Suite, measured: Measured
) -> None:
    before = (measured.folder / ROWS).read_bytes()
    cells = json.loads((measured.folder / SUMMARY).read_text())["cells"]
    evaluate(tiny_suite, folder=measured.folder, **setting.arguments())
    assert (measured.folder / ROWS).read_bytes() == before
    assert json.loads((measured.folder / SUMMARY).read_text())["cells"] == cells


def test_rows_of_another_plan_are_refused_and_the_difference_is_named(
    setting: Setting, tiny_suite: Suite, measured: Measured
) -> None:
    other = tiny_suite.model_copy(update={"gammas": (2,)})
    with pytest.raises(DistillSpecError, match="gammas"):
        evaluate(other, folder=measured.folder, **setting.arguments())


def test_rows_without_a_plan_are_refused(
    setting: Setting, tiny_suite: Suite, measured: Measured, tmp_path: Path
) -> None:
    (tmp_path / ROWS).write_bytes((measured.folder / ROWS).read_bytes())
    with pytest.raises(DistillSpecError, match=r"rows but no plan\.json"):
        evaluate(tiny_suite, folder=tmp_path, **setting.arguments())


def test_repeats_are_shared_out_around_repeats_plus_one_baselines(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    suite = tiny_suite.model_copy(
        update={"repeats": 2, "gammas": (2,), "temperatures": (1.0,), "quality": None}
    )
    arguments = {
        **setting.arguments(),
        "prompts": setting.prompts[:2],
        "drafts": {"undistilled": setting.drafts["undistilled"]},
    }
    summary = evaluate(suite, folder=tmp_path, **arguments)
    block = [row["draft"] for row in rows_in(tmp_path)[:5]]
    assert block == [None, "undistilled", None, "undistilled", None]
    assert summary.comparisons == []
    assert [one.draft for one in summary.examples] == ["undistilled"]


def test_an_unwritable_place_is_the_users_error(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DistillSpecError, match="cannot write"):
        evaluate(tiny_suite, folder=tmp_path / "file" / "evaluation", **setting.arguments())


EVERY_METHOD = [
    {"name": "standard"},
    {"name": "block", "verify": {"kind": "block"}},
    {
        "name": "spectr",
        "draft": {"kind": "sequences", "count": 3},
        "verify": {"kind": "kseq"},
        "stop": {"kind": "adaedl"},
    },
    {
        "name": "rrs",
        "draft": {"kind": "sequences", "count": 2, "distinct": True},
        "verify": {"kind": "recursive"},
    },
    {
        "name": "traversal",
        "draft": {"kind": "sequences", "count": 2},
        "verify": {"kind": "traversal"},
    },
    {"name": "gbv", "draft": {"kind": "sequences", "count": 2}, "verify": {"kind": "multipath"}},
    {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": [4]},
    {"name": "svip", "stop": {"kind": "svip"}, "verify": {"kind": "block"}},
    {"name": "confidence", "stop": {"kind": "confidence"}},
    {
        "name": "guarded",
        "stop": {"kind": "adaedl"},
        "fallback": {"baseline": "standard@2", "window": 3, "pause": 4},
    },
    {"name": "lossy", "verify": {"kind": "lenient", "eps": 0.8}},
    {"name": "draft-verify", "stop": {"kind": "draft_verify"}},
    # Without a prior each arm is tried.
    {
        "name": "ucbspec",
        "choose": {"kind": "ucb", "arms": ["standard", "spectr", "adaedl"], "prior": 0},
    },
    {"name": "exp3spec", "choose": {"kind": "exp3", "arms": ["standard", "rrs"]}},
    {"name": "lookup", "draft": {"kind": "lookup"}},
    {"name": "plain", "draft": {"kind": "none"}},
    {"name": "or-rest", "choose": {"kind": "ucb", "arms": ["standard", "plain"], "prior": 0}},
    {"name": "weak", "draft": {"kind": "chain", "model": "undistilled"}},
    {
        "name": "two-drafts",
        "choose": {"kind": "ucb", "arms": ["standard", "weak", "lookup"], "prior": 0},
    },
    {"name": "hedge", "choose": {"kind": "hedge", "arms": ["standard", "weak", "lookup"]}},
    {
        "name": "forgetful",
        "choose": {"kind": "hedge", "arms": ["standard", "lookup"], "memory": "prompt"},
    },
]


def test_every_method_decodes_the_targets_text_and_finds_its_place_in_the_ranking(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    suite = Suite.model_validate(
        {
            **tiny_suite.model_dump(exclude={"methods"}),
            "gammas": [2],
            "methods": EVERY_METHOD,
            "drafts": ["distilled"],
        }
    )
    summary = evaluate(suite, folder=tmp_path, **setting.arguments())
    greedy = [row for row in rows_in(tmp_path) if row["temperature"] == 0.0]
    assert len({(row["prompt"], tuple(row["tokens"])) for row in greedy}) == 4
    names = [method["name"] for method in EVERY_METHOD]
    for temperature in suite.temperatures:
        ranked = [one for one in summary.ranking if one.temperature == temperature]
        assert sorted(one.method for one in ranked) == sorted(names)
        speeds = [one.tokens_per_second for one in ranked]
        assert speeds == sorted(speeds, reverse=True)
        assert ranked[0].verdict == "fastest"
        assert all(one.drafted_per_token >= one.wasted_per_token >= 0.0 for one in ranked)
    assert [(one.method, one.temperature) for one in summary.oracles] == [
        (method, temperature)  # one of each draft: `weak` names another one
        for temperature in suite.temperatures
        for method in ("standard", "weak")
    ]
    choosing = [method["name"] for method in EVERY_METHOD if "choose" in method]
    for cell in summary.cells:
        assert 1.0 <= cell.tau.value <= cell.gamma + 1
        assert math.isnan(cell.v) == (cell.method in choosing)
        assert math.isnan(cell.expected_tau.value) == (cell.method not in ("standard", "weak"))
        assert cell.draft == ("undistilled" if cell.method == "weak" else "distilled")
        assert (cell.draft_steps == 0.0) == (cell.method in ("lookup", "plain"))
    assert any(note.startswith("LOSSY: lossy.") for note in summary.notes)
    scored = {one.completions_of: one.completions for one in summary.quality}
    assert scored["distilled, lossy"] == 4
    assert scored["distilled"] == 4 * (len(EVERY_METHOD) - 2)  # without `lossy` and `weak`
    learnt = json.loads((tmp_path / "chooser_state.json").read_text())
    assert learnt["distilled/adaedl@4 T=0"]["arms"][0]["stop"] != [0.4, 0.9]
    seen = learnt["distilled/ucbspec@4 T=0"]["arms"]
    assert [arm["name"] for arm in seen] == ["standard", "spectr", "adaedl"]
    assert all(arm["values"][0] >= 1.0 for arm in seen)
    both = learnt["distilled/two-drafts@2 T=1"]["arms"]
    assert [arm["name"] for arm in both if arm["values"][0] >= 1.0] == [
        "standard",
        "weak",
        "lookup",
    ]


def test_an_evaluation_that_goes_on_knows_what_its_stop_rules_had_learnt(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    suite = Suite.model_validate(
        {
            **tiny_suite.model_dump(exclude={"methods"}),
            # The default rule also follows step times, which each start measures again.
            "methods": [
                {"name": "adaedl", "stop": {"kind": "adaedl", "rule": "published"}, "gammas": [4]}
            ],
            "drafts": ["distilled"],
            "quality": None,
        }
    )
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    stops = "distilled/adaedl@4 T=1"

    def interrupt_after_three_blocks(done: int, total: int, doing: str) -> None:
        if done == 3:
            shutil.copytree(whole, rest)

    evaluate(suite, folder=whole, **setting.arguments(), progress=interrupt_after_three_blocks)
    interrupted = json.loads((rest / "chooser_state.json").read_text())
    evaluate(suite, folder=rest, **setting.arguments())
    finished, resumed = (
        json.loads((folder / "chooser_state.json").read_text()) for folder in (whole, rest)
    )
    assert finished[stops] != interrupted[stops]
    assert resumed == finished  # this rule learns from tokens alone, no clock is in it


AUDITED = [
    {"name": "standard"},
    {
        "name": "spectr",
        "draft": {"kind": "sequences", "count": 2},
        "verify": {"kind": "kseq"},
    },
    {"name": "ucbspec", "choose": {"kind": "ucb", "arms": ["standard", "spectr"], "prior": 0}},
]


def audited(tiny_suite: Suite, **changes: Any) -> Suite:
    changed = {"gammas": [2], "methods": AUDITED, "drafts": ["distilled"], "audit": True}
    return Suite.model_validate({**tiny_suite.model_dump(), "quality": None, **changed, **changes})


def test_an_audited_suite_has_a_line_for_every_round_and_a_note_on_its_times(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    summary = evaluate(audited(tiny_suite), folder=tmp_path, **setting.arguments())
    assert any("Every round was audited" in note for note in summary.notes)
    assert [(one.method, one.temperature, one.quantity) for one in summary.regrets] == [
        ("ucbspec", temperature, quantity)
        for temperature in (0.0, 1.0)
        for quantity in ("rounds", "seconds")
    ]
    assert {tuple(one.arms) for one in summary.regrets} == {("standard@2", "spectr@2")}
    page = write_report(tmp_path, {}).read_text(encoding="utf-8")
    for title in ("Regret", "Who decoded, over time", "How unsure the draft was"):
        assert f"<h2>{title}</h2>" in page
    lines = read_audit(tmp_path / AUDIT)
    rows = [row for row in rows_in(tmp_path) if row["draft"] is not None]
    for row in rows:
        mine = [
            line
            for line in lines
            if (line.prompt, line.temperature, line.method)
            == (row["prompt"], row["temperature"], row["method"])
        ]
        assert [line.round for line in mine] == list(range(row["counts"]["target_forwards"]))
        assert sum(line.emitted for line in mine) == 12
        last = [FATES[letter] for letter in row["fates"]]
        ends = itertools.accumulate(line.emitted for line in mine)
        assert [line.fate for line in mine] == [last[end - 1] for end in ends]
    assert len(lines) == sum(row["counts"]["target_forwards"] for row in rows)
    assert {line.arm for line in lines if line.method == "ucbspec"} == {"standard@2", "spectr@2"}
    assert {line.arm for line in lines if line.method == "standard"} == {"standard@2"}


def test_a_resumed_evaluation_audits_each_round_once(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    suite = audited(tiny_suite, prompts={"count": 2}, temperatures=[1.0])
    evaluate(suite, folder=tmp_path, **setting.arguments())
    rows, lines = rows_in(tmp_path), read_audit(tmp_path / AUDIT)
    first = [json.dumps(row) + "\n" for row in rows if row["prompt"] == 0]
    (tmp_path / ROWS).write_text("".join(first))  # killed after the audit, before the rows
    evaluate(suite, folder=tmp_path, **setting.arguments())
    again = read_audit(tmp_path / AUDIT)
    assert [one for one in again if one.prompt == 0] == [one for one in lines if one.prompt == 0]
    places = [(one.prompt, one.method, one.round) for one in again]
    assert len(set(places)) == len(places)
    assert {one.prompt for one in again} == {0, 1}


def test_rows_that_were_audited_and_rows_that_were_not_are_not_mixed(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    suite = audited(tiny_suite, prompts={"count": 1}, temperatures=[1.0])
    evaluate(suite, folder=tmp_path, **setting.arguments())
    plain = suite.model_copy(update={"audit": False})
    with pytest.raises(DistillSpecError, match="different audit"):
        evaluate(plain, folder=tmp_path, **setting.arguments())


@pytest.mark.parametrize("name", ["chooser_state.json", "learnt.json"])  # now, and in 0.1
def test_what_was_learnt_and_cannot_be_read_is_the_users_error(
    name: str, setting: Setting, tiny_suite: Suite, measured: Measured, tmp_path: Path
) -> None:
    lines = (measured.folder / ROWS).read_bytes().splitlines(keepends=True)
    (tmp_path / ROWS).write_bytes(b"".join(lines[:16]))
    (tmp_path / "plan.json").write_bytes((measured.folder / "plan.json").read_bytes())
    (tmp_path / name).write_text("[1]")
    with pytest.raises(DistillSpecError, match="cannot be read") as caught:
        evaluate(tiny_suite, folder=tmp_path, **setting.arguments())
    assert name in str(caught.value.where)


def test_categories_and_rounds_travel_from_the_prompts_to_rows_and_summary(
    setting: Setting, tiny_suite: Suite, tmp_path: Path
) -> None:
    names = ("code", "code", None, "prose")
    prompts = [
        prompt._replace(category=name) for prompt, name in zip(setting.prompts, names, strict=True)
    ]
    suite = tiny_suite.model_copy(update={"temperatures": (1.0,), "gammas": (3,), "quality": None})
    arguments = {**setting.arguments(), "prompts": prompts, "notes": ["a long one is left out"]}
    summary = evaluate(suite, folder=tmp_path, **arguments)
    assert summary.notes[-1] == "a long one is left out"
    for row in rows_in(tmp_path):
        prompt = prompts[row["prompt"]]
        assert row["category"] == prompt.category
        if row["draft"] is None:
            assert row["rounds"] == []
            continue
        assert row["rounds"][0][0] == len(prompt.tokens)
        assert sum(accepted for _, _, accepted in row["rounds"]) == row["counts"]["accepted"]
        assert sum(drafted for _, drafted, _ in row["rounds"]) == row["counts"]["drafted"]
        steps = zip(row["rounds"], row["rounds"][1:], strict=False)
        assert all(b[0] - a[0] == a[2] + 1 for a, b in steps)
    for draft in setting.drafts:
        mine = [one for one in summary.categories if one.draft == draft]
        assert [(one.category, one.prompts) for one in mine] == [
            ("code", 2),
            ("(none)", 1),
            ("prose", 1),
        ]
        cell = summary.cell(draft, "standard", 3, 1.0)
        assert cell is not None
        kept, drafted = sum(o.accepted for o in mine), sum(o.drafted for o in mine)
        assert kept / drafted == pytest.approx(cell.draft_acceptance)
        bins = [one for one in summary.contexts if one.draft == draft]
        assert (sum(o.accepted for o in bins), sum(o.drafted for o in bins)) == (kept, drafted)
