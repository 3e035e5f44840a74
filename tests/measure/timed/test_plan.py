"""An evaluation folder is recognised, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.timed.plan import Prepared, check, plan_of, read_plan, write_plan
from distillspec.recipe.suite import Suite
from distillspec.runtime import provenance
from tests.methods.chain_times import chain_times

if TYPE_CHECKING:
    from tests.measured import Setting

PREPARED = Prepared(
    {("standard", 0.5): chain_times(0.5, 0.004, {2: 0.005, 4: 0.006}, {"distilled": 0.001})},
    {"target": "CausalRunner"},
)


def test_what_was_prepared_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, {"gammas": [2, 4]}, PREPARED)
    assert read_plan(path, {"gammas": [2, 4]}) == PREPARED


def test_a_folder_where_nothing_was_begun_has_no_plan(tmp_path: Path) -> None:
    assert read_plan(tmp_path / "plan.json", {}) is None


def test_every_differing_part_of_a_plan_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(path, {"gammas": [2, 4], "seed": 0, "target": "abc"}, PREPARED)
    with pytest.raises(DistillSpecError, match="gammas, target"):
        read_plan(path, {"gammas": [2], "seed": 0, "target": "def"})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": {}}', '{"plan": {}, "steps": 3}'])
def test_a_broken_plan_is_the_users_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(DistillSpecError, match="cannot be read"):
        read_plan(tmp_path / "plan.json", {})


def test_the_plan_knows_its_models_and_prompts_but_not_how_intervals_are_made(
    setting: Setting, tiny_suite: Suite
) -> None:
    plan = plan_of(tiny_suite, setting.target, setting.drafts, setting.prompts, "cpu")
    others = plan_of(
        tiny_suite.model_copy(update={"confidence": 0.9, "quality": None}),
        setting.drafts["control"],
        {**setting.drafts, "distilled": setting.target},
        setting.prompts[:3],
        "cpu",
    )
    assert {key for key in plan if plan[key] != others[key]} == {"prompts", "target", "drafts"}


def test_no_prompts_and_no_drafts_are_the_users_errors(setting: Setting, tiny_suite: Suite) -> None:
    with pytest.raises(DistillSpecError, match="no prompts"):
        check(tiny_suite, setting.target, setting.drafts, [])
    with pytest.raises(DistillSpecError, match="no draft"):
        check(tiny_suite, setting.target, {}, setting.prompts)


@pytest.mark.parametrize("documents", [7, 8])
def test_documents_too_few_for_a_verdict_are_warned_of_before_decoding(
    setting: Setting, tiny_suite: Suite, documents: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Two prompts of each document: prompts do not count."""
    prompts = [setting.prompts[0]._replace(key=f"document {i // 2}") for i in range(2 * documents)]
    plan = tiny_suite.prompts.model_copy(update={"count": len(prompts)})
    suite = tiny_suite.model_copy(update={"prompts": plan})
    check(suite, setting.target, setting.drafts, prompts)
    warned = "a verdict needs at least 8" in caplog.text
    assert warned is (documents == 7)
    assert not warned or "prompts of 7 documents" in caplog.text


def test_a_draft_that_a_method_names_and_nobody_made_is_the_users_error(
    setting: Setting, tiny_suite: Suite
) -> None:
    weak = {"name": "weak", "draft": {"kind": "chain", "model": "undistilled"}}
    suite = Suite.model_validate(
        {**tiny_suite.model_dump(), "drafts": ["distilled"], "methods": [weak]}
    )
    check(suite, setting.target, setting.drafts, setting.prompts)
    made = {"distilled": setting.drafts["distilled"]}
    with pytest.raises(DistillSpecError, match="'weak' drafts with 'undistilled'"):
        check(suite, setting.target, made, setting.prompts)
    with pytest.raises(DistillSpecError, match="no draft"):
        check(suite, setting.target, {"undistilled": setting.target}, setting.prompts)


def test_texts_longer_than_a_models_positions_are_refused_before_anything_runs(
    setting: Setting, tiny_suite: Suite
) -> None:
    suite = tiny_suite.model_copy(update={"max_new_tokens": 500})
    with pytest.raises(DistillSpecError, match="positions, and the target has 512"):
        check(suite, setting.target, setting.drafts, setting.prompts)


def test_rows_of_other_categories_are_of_another_plan(setting: Setting, tiny_suite: Suite) -> None:
    plain, named = (
        plan_of(
            tiny_suite,
            setting.target,
            setting.drafts,
            [prompt._replace(category=category) for prompt in setting.prompts],
            "cpu",
        )
        for category in (None, "code")
    )
    assert {key for key in plain if plain[key] != named[key]} == {"prompts"}


def test_drafts_that_no_memory_can_hold_are_refused_with_an_estimate(
    setting: Setting, tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 2**22)
    sequences = {"draft": {"kind": "sequences", "count": 64}, "verify": {"kind": "kseq"}}
    suite = Suite.model_validate(
        {
            **tiny_suite.model_dump(exclude={"methods"}),
            "methods": [{"name": "standard"}, {"name": "spectr", "gammas": [32], **sequences}],
        }
    )
    drafts = {"distilled": setting.drafts["distilled"]}
    with pytest.raises(DistillSpecError, match=r"'spectr' at gamma 32 drafts up to 2,048 tokens"):
        check(suite, setting.target, drafts, setting.prompts)
    check(tiny_suite, setting.target, drafts, setting.prompts)
