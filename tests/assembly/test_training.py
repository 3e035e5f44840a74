from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AddedToken

from distillspec.assembly import training as build
from distillspec.assembly.pair import load_pair
from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_tokenizer
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Suite
from tests.models.two_tokenizers import save_other_draft
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
        assert build.prompts(pair).training
    rows = Path("rows.jsonl").read_text().replace("def f7(", "<soft>def f7(")
    Path("rows.jsonl").write_text(rows)
    with pytest.raises(DistillSpecError, match="a text has the token '<soft>' .300.") as caught:
        build.prompts(pair)
    assert "rows" in caught.value.where


def test_the_same_seed_draws_the_same_target_responses(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    prompts = build.prompts(pair).training[:3]
    sample = build.target_sampler(pair)
    assert sample(prompts, [5, 6, 7]) == sample(prompts, [5, 6, 7])
    assert sample(prompts, [5, 6, 7]) != sample(prompts, [8, 9, 10])


def test_a_rows_response_does_not_depend_on_the_rows_beside_it(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    prompts, seeds = build.prompts(pair).training[:4], [5, 6, 7, 8]
    sample = build.target_sampler(pair)
    together = sample(prompts, seeds)
    alone = [sample([one], [seed])[0] for one, seed in zip(prompts, seeds, strict=True)]
    assert together == alone
    assert sample(prompts[::-1], seeds[::-1]) == together[::-1]


def test_the_probe_takes_the_last_held_out_prompts_and_leaves_the_first_unseen(
    plan: dict[str, Any],
) -> None:
    pair = load_pair(recipe(plan, distill={"probe": {"prompts": 2}}))
    held_out = build.prompts(pair).held_out
    assert build.probe(pair, held_out)._prompts == [held_out[-1].tokens, held_out[-2].tokens]


def test_the_probe_takes_one_prompt_of_each_of_the_last_documents(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan, distill={"probe": {"prompts": 3}}))
    first = build.prompts(pair).held_out
    of = ["a", "b", "c", "a", "b"]  # one of each document, then a second one
    held_out = [one._replace(part_of=name) for one, name in zip(first, of, strict=False)]
    assert build.probe_prompts(pair.recipe, held_out) == [held_out[i] for i in (2, 1, 0)]
    alone = [one._replace(part_of="a") for one in held_out]
    assert build.probe_prompts(pair.recipe, alone) == [alone[i] for i in (0, 4, 3)]


def test_the_control_differs_in_objective_source_and_length_alone(plan: dict[str, Any]) -> None:
    given = recipe(plan, distill={"divergence": "tvd", "batch_size": 8})
    control = build.control_recipe(given, 1.5)
    assert control.distill.divergence == "nll"
    assert control.distill.max_minutes == 1.5
    kept = control.distill.model_dump(exclude={"divergence", "source", "max_minutes", "max_steps"})
    assert kept == given.distill.model_dump(
        exclude={"divergence", "source", "max_minutes", "max_steps"}
    )
    assert control.optimizer == given.optimizer


@pytest.mark.parametrize(
    ("shares", "fixed", "target"),
    [
        ({"draft": 1.0}, 1.0, 0.0),
        ({"target": 1.0}, 0.0, 1.0),
        ({"fixed": 0.2, "target": 0.6, "draft": 0.2}, 0.25, 0.75),
    ],
)
def test_the_control_reads_the_same_stored_text(
    plan: dict[str, Any], shares: dict[str, float], fixed: float, target: float
) -> None:
    source = build.control_recipe(recipe(plan, distill={"source": shares}), 1.0).distill.source
    assert (source.fixed, source.target, source.draft) == pytest.approx((fixed, target, 0.0))


def test_no_preview_is_made_where_none_is_wanted(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan, data={**plan["data"], "preview": 0}))
    assert build.preview(pair, build.prompts(pair).training) is None


def test_prompts_of_chats_are_not_learned_from(plan: dict[str, Any]) -> None:
    answer = {"role": "assistant", "content": "b"}
    rows = ({"messages": [{"role": "user", "content": f"{i}?"}, answer]} for i in range(40))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = load_pair(recipe(plan, distill={"on_prompts": True}))
    pair.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(DistillSpecError, match="chats"):
        build.prompts(pair)


def test_fixed_responses_that_are_missing_are_found_with_the_prompts(plan: dict[str, Any]) -> None:
    rows = ({"prompt": f"def f{i}(x):"} for i in range(40))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = load_pair(recipe(plan, distill={"source": {"fixed": 1.0}}))
    with pytest.raises(DistillSpecError, match="no response of their own"):
        build.prompts(pair)


@pytest.mark.parametrize(("texts", "noted"), [(9, False), (10, True)])
def test_a_probe_that_shares_prompts_with_the_suites_texts_is_noted(
    plan: dict[str, Any], texts: int, noted: bool
) -> None:
    Path("suite.yaml").write_text(f"prompts: {{count: 2, texts: {texts}}}\n")
    probe = {"prompts": 2, "every_steps": 2, "max_new_tokens": 4}
    made = recipe(plan, distill={"probe": probe}, evaluate={"suite": "suite.yaml"})
    sets = build.prompts(load_pair(made))
    assert len(sets.held_out) == 11
    assert bool(build.overlap(made, sets)) is noted


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
    prompts, _ = build.suite_prompts(pair, suite, [draft])
    assert {len(prompt.tokens) for prompt in prompts} == {100 - 20 - 5}
    assert {len(p.tokens) for p in build.suite_prompts(pair, suite, []).prompts} == {400}
    with pytest.raises(DistillSpecError, match="none is left for a prompt"):
        build.suite_prompts(pair, suite.model_copy(update={"max_new_tokens": 95}), [draft])


def test_every_text_that_training_may_show_is_kept(plan: dict[str, Any]) -> None:
    source = {"fixed": 0.5, "target": 0.5}
    given = recipe(plan, distill={"source": source, "target_logits": {"kind": "cached", "k": 8}})
    pair = load_pair(given)
    training = build.prompts(pair).training
    responses = {prompt.key: (5, 6, 7) for prompt in training}
    signal = given.distill.cached_logits
    assert signal is not None
    store = build.signal_store(pair, signal, training, responses)
    assert store.folder.parent == Path("data/signals")
    assert store.texts == 2 * len(training)
    # A prompt has 11 or 12 characters; responses are cut at 4 tokens.
    assert store.tokens == (4 + 3) * len(training)
    assert store.bytes_per_token == signal.bytes_per_token(300)


def test_the_control_reads_no_kept_signal(plan: dict[str, Any]) -> None:
    signal = {"kind": "cached"}
    given = recipe(plan, distill={"source": {"fixed": 1.0}, "target_logits": signal})
    control = build.control_recipe(given, 1.0)
    assert control.distill.cached_logits is None
    assert Recipe.model_validate(control.model_dump()) == control


def test_a_prompts_tokens_are_kept_too_where_they_are_learned_from(plan: dict[str, Any]) -> None:
    counts = []
    for on_prompts in (False, True):
        distill = {
            "source": {"fixed": 1.0},
            "on_prompts": on_prompts,
            "target_logits": {"kind": "cached", "k": 8, "store": f"signals-{on_prompts}"},
        }
        given = recipe(plan, distill=distill)
        pair = load_pair(given)
        training = build.prompts(pair).training
        signal = given.distill.cached_logits
        assert signal is not None
        counts.append(build.signal_store(pair, signal, training, None).tokens)
    assert counts[1] - counts[0] == sum(len(prompt.tokens) - 1 for prompt in training)


def test_text_is_left_out_that_is_too_long_in_the_drafts_own_tokens(plan: dict[str, Any]) -> None:
    equal = load_pair(recipe(plan))
    sets = build.prompts(equal)
    assert build.text_for_draft(equal, sets, None) == (sets.training, sets.held_out, [])
    save_other_draft(Path("other"), max_positions=90)
    given = recipe(
        plan,
        pair={**plan["pair"], "draft": "other", "tokenizers": "cross-tokenizer"},
        distill={"source": {"fixed": 0.5, "target": 0.5}, "probe": {"max_new_tokens": 8}},
    )
    pair = load_pair(given)
    assert pair.bridge is not None
    assert pair.draft_positions == 90
    usual = {prompt.key: (1, 2, 3) for prompt in sets.training}
    assert build.text_for_draft(pair, sets, usual) == (sets.training, sets.held_out, [])
    hard = max(range(300), key=lambda token: len(pair.bridge.pieces(token)))
    first = sets.training[0].key
    found = build.text_for_draft(pair, sets, {**usual, first: (hard,) * 80})
    assert found.training == sets.training[1:]
    (note,) = found.notes
    assert note.startswith(f"1 of {len(sets.training)} training texts")
    needed = [pair.bridge.length(prompt.tokens) for prompt in sets.held_out]
    narrow = replace(pair, draft_positions=max(needed) + 7)
    found = build.text_for_draft(narrow, sets, dict.fromkeys(usual, ()))
    fitting = [one for one, size in zip(sets.held_out, needed, strict=True) if size < max(needed)]
    assert found.held_out == fitting


def test_a_bucket_is_no_longer_than_the_training_and_a_batch_no_multitude(
    plan: dict[str, Any],
) -> None:
    pair = load_pair(recipe(plan))
    prompts = build.prompts(pair).training
    values = pair.recipe.model_dump()

    def made(**changes: int) -> object:
        changed = {**values, "distill": {**values["distill"], **changes}}
        return build.rows(Recipe.model_validate(changed), prompts, {}).state_dict()["bucket_steps"]

    assert made(bucket_steps=10**6, max_steps=8) == 8
    with pytest.raises(DistillSpecError, match="rows at one time") as caught:
        made(bucket_steps=10**6, max_steps=10**6)
    assert caught.value.where == "distill.bucket_steps"
    with pytest.raises(DistillSpecError, match="rows at one time") as caught:
        made(batch_size=10**6)
    assert caught.value.where == "distill.batch_size"
