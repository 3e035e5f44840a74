from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AddedToken

from distillspec.assembly.pair import load_pair
from distillspec.assembly.text import (
    overlap_notes,
    pair_prompts,
    preview_batch,
    probe_prompts,
    suite_prompts,
    verdict_notes,
)
from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_tokenizer
from distillspec.recipe.suite import Suite
from tests.tiny_plan import recipe, written_plan


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_a_prompt_with_a_token_that_the_models_lack_is_named_before_a_run_begins(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    """An image token, added to the tokenizer and to no model."""
    target = Path(shutil.copytree(plan["pair"]["target"], tmp_path / "target"))
    tokenizer = load_tokenizer(str(target))
    tokenizer.add_tokens([AddedToken("<soft>", special=True)])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(target)
    made = {"target": str(target), "draft": {"kind": "pruned", "layers": 1}}
    given = {**plan["pair"], "target": str(target)}
    for pair in (load_pair(recipe(plan, pair=made)), load_pair(recipe(plan, pair=given))):
        assert pair.tokenizer.pad_token_id == 301
        assert (pair.vocab_size, pair.pad_token) == (300, 0)
        assert pair_prompts(pair).training
    rows = Path("rows.jsonl").read_text().replace("def f7(", "<soft>def f7(")
    Path("rows.jsonl").write_text(rows)
    with pytest.raises(DistillSpecError, match="a text has the token '<soft>' .300.") as caught:
        pair_prompts(pair)
    assert "rows" in caught.value.where


def test_the_probe_takes_one_prompt_of_each_of_the_last_documents(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan, distill={"probe": {"prompts": 3}}))
    first = pair_prompts(pair).held_out
    of = ["a", "b", "c", "a", "b"]  # one of each document, then a second one
    held_out = [one._replace(part_of=name) for one, name in zip(first, of, strict=False)]
    assert probe_prompts(pair.recipe, held_out) == [held_out[i] for i in (2, 1, 0)]
    alone = [one._replace(part_of="a") for one in held_out]
    assert probe_prompts(pair.recipe, alone) == [alone[i] for i in (0, 4, 3)]


def test_no_preview_is_made_where_none_is_wanted(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan, data={**plan["data"], "preview": 0}))
    assert preview_batch(pair, pair_prompts(pair).training, None) is None


def test_the_preview_shows_the_text_that_is_trained_on(plan: dict[str, Any]) -> None:
    written = load_pair(recipe(plan, distill={"source": {"draft": 1.0}}))
    training = pair_prompts(written).training
    assert preview_batch(written, training, None) is None  # the draft has not written it yet
    sampled = load_pair(recipe(plan, distill={"source": {"target": 1.0}}))
    responses = {prompt.key: (7, 8, 9) for prompt in training}
    rows = preview_batch(sampled, training, responses)
    assert rows is not None and len(rows.tokens) == sampled.recipe.data.preview
    assert [
        row[mask].tolist() for row, mask in zip(rows.tokens, rows.is_response, strict=True)
    ] == [[7, 8, 9]] * len(rows.tokens)


def test_prompts_of_chats_are_not_learned_from(plan: dict[str, Any]) -> None:
    answer = {"role": "assistant", "content": "b"}
    rows = ({"messages": [{"role": "user", "content": f"{i}?"}, answer]} for i in range(40))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = load_pair(recipe(plan, distill={"on_prompts": True}))
    pair.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(DistillSpecError, match="chats"):
        pair_prompts(pair)


def test_fixed_responses_that_are_missing_are_found_with_the_prompts(plan: dict[str, Any]) -> None:
    rows = ({"prompt": f"def f{i}(x):"} for i in range(40))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = load_pair(recipe(plan, distill={"source": {"fixed": 1.0}}))
    with pytest.raises(DistillSpecError, match="no response in the data"):
        pair_prompts(pair)


@pytest.mark.parametrize(("texts", "noted"), [(9, False), (10, True)])
def test_a_probe_that_shares_prompts_with_the_suites_texts_is_noted(
    plan: dict[str, Any], texts: int, noted: bool
) -> None:
    Path("suite.yaml").write_text(f"prompts: {{count: 2, texts: {texts}}}\n")
    probe = {"prompts": 2, "every_steps": 2, "max_new_tokens": 4}
    made = recipe(plan, distill={"probe": probe}, evaluate={"suite": "suite.yaml"})
    sets = pair_prompts(load_pair(made))
    assert len(sets.held_out) == 11
    assert bool(overlap_notes(made, sets)) is noted


@pytest.mark.parametrize(("count", "noted"), [(7, True), (8, False)])
def test_too_few_documents_for_a_verdict_are_noted_before_training(
    plan: dict[str, Any], count: int, noted: bool
) -> None:
    Path("suite.yaml").write_text(f"prompts: {{count: {count}}}\n")
    made = recipe(plan, evaluate={"suite": "suite.yaml"})
    notes = verdict_notes(made, pair_prompts(load_pair(made)))
    assert len(notes) == noted
    assert not noted or "prompts of 7 documents, and a verdict needs at least 8" in notes[0]


def test_prompts_of_a_suite_leave_room_for_what_is_decoded_in_the_shortest_context(
    plan: dict[str, Any],
) -> None:
    pair = load_pair(recipe(plan))
    draft = pair.draft()
    draft.config.max_position_embeddings = 100
    values = {
        "prompts": {"source": {"kind": "adversarial", "shapes": ["long"]}, "max_tokens": 400},
        "max_new_tokens": 20,
        "gammas": [2, 5],
    }
    suite = Suite.model_validate(values)
    prompts, _ = suite_prompts(pair, suite, [draft])
    assert {len(prompt.tokens) for prompt in prompts} == {100 - 20 - 5}
    assert {len(p.tokens) for p in suite_prompts(pair, suite, []).prompts} == {400}
    with pytest.raises(DistillSpecError, match="none is left for a prompt"):
        suite_prompts(pair, suite.model_copy(update={"max_new_tokens": 95}), [draft])
