from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import MambaConfig, MambaForCausalLM

from distillspec.assembly.pair import device_of, load_pair, prepare_process, with_draft_of
from distillspec.assembly.target_data import target_sampler
from distillspec.assembly.text import pair_prompts
from distillspec.errors import DistillSpecError
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.load import load_tokenizer
from distillspec.recipe.schema import HardwareConfig
from tests.seq2seq import END, START, written_pair
from tests.tiny_plan import recipe, written_plan

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2}


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_a_pair_is_loaded_and_checked(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan))
    assert pair.vocab_size == 300
    assert pair.eos_token_ids == {0}
    assert not any(p.requires_grad for p in pair.target.model.parameters())
    assert pair.draft().dtype == torch.float32


def test_what_ends_a_text_is_what_the_recipe_names_if_it_names_any(plan: dict[str, Any]) -> None:
    pair = load_pair(recipe(plan, pair={**plan["pair"], "eos_token_ids": [5, 7]}))
    assert pair.eos_token_ids == {5, 7}
    assert pair.vocabulary.exported_eos_ids(pair.eos_token_ids) == {5, 7}
    with pytest.raises(DistillSpecError, match="token 300 cannot end a text"):
        load_pair(recipe(plan, pair={**plan["pair"], "eos_token_ids": [0, 300]}))


def test_the_token_behind_an_answer_of_the_template_ends_texts_of_every_kind(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    """Sampled, stored and exported texts, and rows of the data."""
    pieces = load_tokenizer(plan["pair"]["target"]).get_vocab()
    end = min(piece for piece in pieces if len(piece) > 2 and piece.isascii() and piece.isalpha())
    token = pieces[end]  # a word of the tiny vocabulary, made special
    for name in ("target", "draft"):
        folder = Path(shutil.copytree(plan["pair"][name], tmp_path / name))
        tokenizer = load_tokenizer(str(folder))
        tokenizer.add_special_tokens({"additional_special_tokens": [end]})
        tokenizer.chat_template = (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}" + end + "{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}"
        )
        tokenizer.save_pretrained(folder)
    chat = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": [{**chat[0], "content": f"{i}?"}, chat[1]]} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {**plan["data"], "source": {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}}
    names = {name: str(tmp_path / name) for name in ("target", "draft")}
    pair = load_pair(recipe(plan, pair={**plan["pair"], **names}, data=data))
    assert pair.eos_token_ids == {0, token}
    assert pair.vocabulary.exported_eos_ids(pair.eos_token_ids) == {0, token}
    sets = pair_prompts(pair)
    assert f"{token} {end!r} (after an answer in the chat template)" in sets.notes[0]
    assert {p.response[-1] for p in sets.training if p.response} == {token}
    head = pair.target.model.get_output_embeddings().weight
    with torch.no_grad():
        head.zero_()  # all tokens are equally likely
    asked = sets.training * 20
    drawn = target_sampler(pair)(asked, list(range(len(asked))))
    assert any(text[-1] == token for text in drawn)
    assert not any(token in text[:-1] for text in drawn)


def test_tokenizers_that_differ_are_refused(plan: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(plan["pair"]["draft"], other)
    text = json.loads((other / "tokenizer.json").read_text())
    vocab_size = text["model"]["vocab"]
    first, second = list(vocab_size)[50:52]
    vocab_size[first], vocab_size[second] = vocab_size[second], vocab_size[first]
    (other / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(DistillSpecError, match="differ"):
        load_pair(recipe(plan, pair={**plan["pair"], "draft": str(other)}))


@pytest.mark.parametrize("name", ["target", "draft"])
def test_a_model_with_a_running_state_is_refused_when_the_pair_is_loaded(
    plan: dict[str, Any], tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(plan["pair"][name], tmp_path / "mamba"))
    shape = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}
    MambaForCausalLM(MambaConfig(vocab_size=300, eos_token_id=0, **shape)).save_pretrained(folder)
    with pytest.raises(DistillSpecError, match="memory of MambaForCausalLM .* be rolled back"):
        load_pair(recipe(plan, pair={**plan["pair"], name: str(folder)}))


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
    assert whole.vocab_size == 300
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


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        assert device_of(HardwareConfig(device="cuda")).type == "cuda"
        return
    with pytest.raises(DistillSpecError, match="no GPU"):
        device_of(HardwareConfig(device="cuda"))


def test_rows_longer_than_the_contexts_are_refused_before_training(plan: dict[str, Any]) -> None:
    data = {**plan["data"], "max_prompt_tokens": 512}
    with pytest.raises(DistillSpecError, match="contexts hold 512"):
        load_pair(recipe(plan, data=data))


def test_packed_rows_longer_than_the_contexts_are_refused(plan: dict[str, Any]) -> None:
    load_pair(recipe(plan, distill={**plan.get("distill", {}), "packing": 512}))
    with pytest.raises(DistillSpecError, match="packed row may have 513 tokens") as caught:
        load_pair(recipe(plan, distill={**plan.get("distill", {}), "packing": 513}))
    assert "512" in caught.value.fix


@pytest.fixture
def process_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what it sets does not outlast it
    was, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[]):
        yield
    torch.use_deterministic_algorithms(was)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.usefixtures("process_settings")
@pytest.mark.parametrize(("given", "used"), [(None, "128"), ("7", "7")])
def test_the_products_that_a_cpu_keeps_are_bounded_unless_the_user_says_how(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "" if given is None else given)  # undone after the test
    if given is None:
        monkeypatch.delenv(name)
    prepare_process(recipe(plan, hardware={"device": "cpu"}))
    assert os.environ[name] == used


@pytest.mark.usefixtures("process_settings")
def test_deterministic_mode_refuses_what_has_no_fixed_order(plan: dict[str, Any]) -> None:
    def scattered() -> None:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    scattered()
    prepare_process(recipe(plan, hardware={"device": "cpu", "deterministic": True}))
    assert torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="deterministic"):
        scattered()


# --- encoder-decoder pairs ------------------------------------------------------------------------


@pytest.fixture
def answering(plan: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    pair = written_pair(tmp_path / "t5")
    return {**plan, "pair": {"target": str(pair / "target"), "draft": str(pair / "draft")}}


def test_an_encoder_decoder_pair_is_loaded_and_knows_what_responses_begin_with(
    plan: dict[str, Any], answering: dict[str, Any]
) -> None:
    assert load_pair(recipe(plan)).start_token is None
    pair = load_pair(recipe(answering))
    assert (pair.start_token, pair.eos_token_ids) == (START, {END})
    sets = pair_prompts(pair)
    assert all(prompt.tokens[-2:] == (END, START) for prompt in sets.training)
    adapted = load_pair(recipe(answering, lora={"rank": 2, "targets": ["q", "v"]}))
    assert isinstance(adapted.trainable_draft(), PeftModel)


def test_the_drafts_dropout_is_off_in_training(answering: dict[str, Any]) -> None:
    draft = load_pair(recipe(answering)).trainable_draft()
    assert draft.config.dropout_rate > 0.0
    assert all(m.p == 0.0 for m in draft.modules() if isinstance(m, torch.nn.Dropout))


@pytest.mark.parametrize(
    ("section", "changes", "says"),
    [
        ("distill", {"on_prompts": True}, "never predicted"),
        ("distill", {"packing": 100}, "one source"),
        ("distill", {"source": {"speculative": 1.0}}, "causal pairs"),
        ("pair", {"draft": {"kind": "pruned", "layers": 1}}, "no draft can be made"),
    ],
)
def test_what_is_for_causal_pairs_is_refused(
    answering: dict[str, Any], section: str, changes: dict[str, Any], says: str
) -> None:
    changed = {**answering, section: {**answering.get(section, {}), **changes}}
    with pytest.raises(DistillSpecError, match=says):
        load_pair(recipe(changed))


def test_models_of_two_kinds_are_no_pair(plan: dict[str, Any], answering: dict[str, Any]) -> None:
    mixed = {**answering["pair"], "draft": plan["pair"]["draft"]}
    with pytest.raises(DistillSpecError, match="draft is a causal model"):
        load_pair(recipe({**answering, "pair": mixed}))


def test_an_endpoint_answers_for_causal_drafts(answering: dict[str, Any]) -> None:
    endpoint = {"url": "http://localhost:1/v1", "model": "m"}
    asked = recipe(
        answering,
        pair={"endpoint": endpoint, "draft": answering["pair"]["draft"]},
        distill={"divergence": "nll", "source": {"target": 1.0}},
    )
    with pytest.raises(DistillSpecError, match="this one has an encoder"):
        load_pair(asked)
