from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from distillspec import build
from distillspec.errors import DistillSpecError
from distillspec.models.digest import model_digest
from distillspec.pair import device_of, load_pair, with_draft_of
from distillspec.recipe.schema import Hardware, Recipe
from distillspec.recipe.suite import Suite

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2}


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    rows = ({"prompt": f"def f{i}(x):", "response": "\n    return x"} for i in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return {
        "name": "tiny",
        "pair": {"target": str(tiny_pair / "target"), "draft": str(tiny_pair / "draft")},
        "data": {
            "source": {"kind": "jsonl", "path": "rows.jsonl"},
            "held_out_percent": 25.0,
            "max_prompt_tokens": 64,
            "max_response_tokens": 4,
        },
        "hardware": {"device": "cpu", "precision": "float32"},
    }


def recipe(plan: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe.model_validate({**plan, **changes})


def test_a_pair_is_loaded_and_checked(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    assert pair.vocabulary == 300
    assert pair.end_tokens == {0}
    assert not any(p.requires_grad for p in pair.target.model.parameters())
    assert pair.draft().dtype == torch.float32


def test_tokenizers_that_differ_are_refused(plan: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(plan["pair"]["draft"], other)
    text = json.loads((other / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    first, second = list(vocabulary)[50:52]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(DistillSpecError, match="differ"):
        load_pair(recipe(plan, pair={**plan["pair"], "draft": str(other)}))


def test_lora_adapters_are_put_in_place_where_the_recipe_asks(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan, lora={"rank": 2}))
    assert isinstance(pair.trainable_draft(), PeftModel)


def test_a_draft_is_made_of_the_stored_weights_whatever_the_target_is_cast_to(
    plan: dict[str, Any],
) -> None:
    made = {"target": plan["pair"]["target"], "draft": {"kind": "pruned", "layers": 1}}
    whole, half = (
        load_pair(recipe(plan, pair=made), kind) for kind in (torch.float32, torch.bfloat16)
    )
    assert (whole.target.model.dtype, half.target.model.dtype) == (torch.float32, torch.bfloat16)
    one, two = (model_digest(pair.draft()) for pair in (whole, half))
    assert one == two
    assert whole.vocabulary == 300
    first = whole.target.model.model.layers[0].mlp.up_proj.weight
    assert torch.equal(whole.draft().model.layers[0].mlp.up_proj.weight, first)


def test_a_pair_takes_the_draft_of_another_recipe_beside_the_target_that_is_there(
    plan: dict[str, Any],
) -> None:
    pair = load_pair(recipe(plan), torch.bfloat16)
    target = plan["pair"]["target"]
    made = {"target": target, "draft": {"kind": "pruned", "layers": 1}}
    other = with_draft_of(pair, recipe(plan, pair=made, seed=3))
    assert other.target.model is pair.target.model
    alone = load_pair(recipe(plan, pair=made))
    assert alone.start is not None and other.start is not None
    assert model_digest(other.start) == model_digest(alone.start)
    back = with_draft_of(other, recipe(plan))
    assert back.start is None
    assert model_digest(back.draft()) == model_digest(pair.draft())
    random = {"kind": "random", "shape": SHAPE}
    drawn = [
        with_draft_of(pair, recipe(plan, pair={"target": target, "draft": random}, seed=seed))
        for seed in (1, 2)
    ]
    assert all(one.start is not None for one in drawn)
    one, two = (model_digest(one.draft()) for one in drawn)
    assert one == two  # by the pair's own seed
    with pytest.raises(DistillSpecError, match="nowhere"):
        with_draft_of(pair, recipe(plan, pair={"target": target, "draft": "./nowhere"}))


def test_the_export_has_the_targets_rows(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    assert pair.exported_vocabulary(pair.draft()) == 300


def test_training_a_made_draft_leaves_its_start_as_it_was(plan: dict[str, Any]) -> None:
    made = {"target": plan["pair"]["target"], "draft": {"kind": "pruned", "layers": 1}}
    pair = load_pair(recipe(plan, pair=made))
    with torch.no_grad():
        for parameter in pair.trainable_draft().parameters():
            parameter.zero_()
    assert bool(pair.draft().lm_head.weight.any())


def test_layers_that_do_not_exist_are_refused_with_the_pair(plan: dict[str, Any]) -> None:
    made = {"target": plan["pair"]["target"], "draft": {"kind": "pruned", "layers": [5]}}
    with pytest.raises(DistillSpecError, match="no layer 5"):
        load_pair(recipe(plan, pair=made))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lora": {"targets": ["query"]}}, "no linear layer of the draft is called 'query'"),
        (
            {"pair": {"draft_head": {"keep": 301}}, "distill": {"source": {"fixed": 1.0}}},
            "cannot keep 301 tokens: it has 300",
        ),
    ],
)
def test_what_cannot_be_changed_about_the_draft_is_found_with_the_pair(
    plan: dict[str, Any], changes: dict[str, Any], why: str
) -> None:
    changes = {**changes, "pair": {**plan["pair"], **changes.get("pair", {})}}
    with pytest.raises(DistillSpecError, match=why):
        load_pair(recipe(plan, **changes))


def test_adapters_that_match_nothing_are_found_before_an_endpoint_is_asked(
    plan: dict[str, Any],
) -> None:
    endpoint = {"url": "http://localhost:1/v1", "model": "m"}
    given = recipe(
        plan,
        pair={"endpoint": endpoint, "draft": plan["pair"]["draft"]},
        distill={"divergence": "nll", "source": {"target": 1.0}},
        lora={"targets": ["query"]},
    )
    with pytest.raises(DistillSpecError, match="no linear layer of the draft is called 'query'"):
        load_pair(given)


def test_the_same_seed_draws_the_same_target_responses(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    prompts = build.prompts(pair).training[:3]
    sample = build.target_sampler(pair)
    assert sample(prompts, 5) == sample(prompts, 5)
    assert sample(prompts, 5) != sample(prompts, 6)


def test_the_probe_takes_the_last_held_out_prompts_and_leaves_the_first_unseen(
    plan: dict[str, Any],
) -> None:
    pair = load_pair(recipe(plan, distill={"probe": {"prompts": 2}}))
    held_out = build.prompts(pair).held_out
    assert build.probe(pair, held_out)._prompts == [held_out[-1].tokens, held_out[-2].tokens]


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


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        assert device_of(Hardware(device="cuda")).type == "cuda"
        return
    with pytest.raises(DistillSpecError, match="no GPU"):
        device_of(Hardware(device="cuda"))


def test_rows_longer_than_the_contexts_are_refused_before_training(plan: dict[str, Any]) -> None:
    data = {**plan["data"], "max_prompt_tokens": 512}
    with pytest.raises(DistillSpecError, match="contexts hold 512"):
        load_pair(recipe(plan, data=data))


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
    given = recipe(plan, distill={"source": source, "signal": {"kind": "cached", "k": 8}})
    pair = load_pair(given)
    training = build.prompts(pair).training
    responses = {prompt.key: (5, 6, 7) for prompt in training}
    signal = given.distill.cached_signal
    assert signal is not None
    store = build.signal_store(pair, signal, training, responses)
    assert store.folder == Path("data/signals/tiny")
    assert store.texts == 2 * len(training)
    # A prompt has 11 or 12 characters; responses are cut at 4 tokens.
    assert store.tokens == (4 + 3) * len(training)
    assert store.bytes_per_token == signal.bytes_per_token(300)


def test_the_control_reads_no_kept_signal(plan: dict[str, Any]) -> None:
    signal = {"kind": "cached"}
    given = recipe(plan, distill={"source": {"fixed": 1.0}, "signal": signal})
    control = build.control_recipe(given, 1.0)
    assert control.distill.cached_signal is None
    assert Recipe.model_validate(control.model_dump()) == control


def test_a_prompts_tokens_are_kept_too_where_they_are_learned_from(plan: dict[str, Any]) -> None:
    counts = []
    for on_prompts in (False, True):
        distill = {
            "source": {"fixed": 1.0},
            "on_prompts": on_prompts,
            "signal": {"kind": "cached", "k": 8, "store": f"signals-{on_prompts}"},
        }
        given = recipe(plan, distill=distill)
        pair = load_pair(given)
        training = build.prompts(pair).training
        signal = given.distill.cached_signal
        assert signal is not None
        counts.append(build.signal_store(pair, signal, training, None).tokens)
    assert counts[1] - counts[0] == sum(len(prompt.tokens) - 1 for prompt in training)
