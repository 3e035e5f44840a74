"""Models of a pair on the tiny pair: what is loaded, what is made, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillspec.assembly.pair_models import (
    check_contexts,
    check_draft,
    check_seq2seq,
    end_of_text,
    load_draft,
    load_draft_tokenizer,
    load_stored_target,
    load_target,
    make_draft,
)
from distillspec.errors import DistillSpecError
from distillspec.models.loading.digest import model_digest
from distillspec.recipe.start import PrunedDraftConfig
from tests.tiny_plan import recipe, written_plan

CPU = torch.device("cpu")
PRUNED = PrunedDraftConfig(kind="pruned", layers=1)


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_one_process_holds_all_weights_of_a_target_that_may_be_split(plan: dict[str, Any]) -> None:
    hardware = {"device": "cpu", "precision": "float32"}
    loaded = load_target(recipe(plan, hardware=hardware), torch.float32, CPU)
    stored = load_stored_target(recipe(plan))
    assert model_digest(loaded) == model_digest(stored.to(torch.float32))


def test_a_made_draft_depends_on_the_seed_and_on_the_stored_weights_alone(
    plan: dict[str, Any],
) -> None:
    made = recipe(plan, pair={"target": plan["pair"]["target"], "draft": PRUNED.model_dump()})
    first, second = (make_draft(made, PRUNED, load_stored_target(made), 0, 3) for _ in range(2))
    assert model_digest(first) == model_digest(second)
    assert first.config.num_hidden_layers == 1


def test_the_end_of_a_made_draft_is_the_tokenizers_before_other_ends(plan: dict[str, Any]) -> None:
    tokenizer = load_draft_tokenizer(recipe(plan))
    assert end_of_text(tokenizer, frozenset({7, 5})) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert end_of_text(tokenizer, frozenset({7, 5})) == 5


def test_rows_must_fit_the_shortest_context(plan: dict[str, Any]) -> None:
    draft = load_draft(recipe(plan), torch.float32, CPU)
    check_contexts(recipe(plan), draft)
    too_long = recipe(plan, data={**plan["data"], "max_prompt_tokens": 512})
    with pytest.raises(DistillSpecError, match="512"):
        check_contexts(too_long, draft)


def test_a_trimmed_head_keeps_at_most_the_tokens_of_the_draft(plan: dict[str, Any]) -> None:
    draft = load_draft(recipe(plan), torch.float32, CPU)
    fixed = {"source": {"fixed": 1.0}}
    for keep in (299, 300):
        pair = {**plan["pair"], "draft_head": {"keep": keep}}
        check_draft(recipe(plan, pair=pair, distill=fixed), draft)
    pair = {**plan["pair"], "draft_head": {"keep": 301}}
    with pytest.raises(DistillSpecError) as caught:
        check_draft(recipe(plan, pair=pair, distill=fixed), draft)
    assert caught.value.where == "pair.draft_head.keep=301"


def test_an_encoder_decoder_pair_refuses_a_loss_on_prompts(plan: dict[str, Any]) -> None:
    check_seq2seq(recipe(plan))
    with pytest.raises(DistillSpecError) as caught:
        check_seq2seq(recipe(plan, distill={"on_prompts": True}))
    assert caught.value.where == "distill.on_prompts"
