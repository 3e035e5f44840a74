"""The recipes of real pairs: dry-run, and trained for a step on tiny models of their classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from distillspec.errors import DistillSpecError
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.builtin import names
from distillspec.recipe.data import HubSource
from distillspec.recipe.dry_run import plan, render
from distillspec.recipe.loading import load_comparison, load_recipe
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.schema import Recipe
from distillspec.workflows import distill
from distillspec.workflows.compare_variants import checked_variants
from tests.seq2seq import t5_tokenizer

ROOT = Path(__file__).parents[1]
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def llama_like(kind: type[PretrainedConfig], vocab_size: int, **more: Any) -> PretrainedConfig:
    return kind(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        eos_token_id=0,
        **more,
    )


def neox(vocab_size: int) -> PretrainedConfig:
    return GPTNeoXConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        eos_token_id=0,
    )


def t5(vocab_size: int) -> PretrainedConfig:
    """As version 1.1 and FLAN have it: gated, with a head of its own."""
    return T5Config(
        vocab_size=vocab_size,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=0,
        decoder_start_token_id=0,
        eos_token_id=1,
    )


# Their halves are made by recipes of kind pretrain.
TO_BE_MADE = {"lm1b-234m--lm1b-33m"}

# Recipes whose target is fetched from the package index, and whose draft is made of it.
PUBLISHED = ("smollm2-135m", "smollm2-135m-draft")

# Of target and draft; vocabularies are padded as the real ones are: equally, or the target's more.
PAIRS = {
    "llama-3.1-8b--llama-3.2-1b": [llama_like(LlamaConfig, 304)] * 2,
    "llama-3.3-70b--llama-3.2-1b": [llama_like(LlamaConfig, 304)] * 2,
    "qwen3-8b--qwen3-0.6b": [llama_like(Qwen3Config, 304, head_dim=8)] * 2,
    "qwen2.5-7b--qwen2.5-0.5b": [llama_like(Qwen2Config, 320), llama_like(Qwen2Config, 304)],
    "smollm2-1.7b--smollm2-135m": [llama_like(LlamaConfig, 300, tie_word_embeddings=True)] * 2,
    "pythia-1.4b--pythia-31m": [neox(304)] * 2,
    "lm1b-234m--lm1b-33m": [llama_like(LlamaConfig, 300, tie_word_embeddings=True)] * 2,
    "flan-t5-xl--flan-t5-small": [t5(320)] * 2,
    "flan-t5-xl--flan-t5-small-gsm8k": [t5(320)] * 2,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "eval", tmp_path / "eval")
    return tmp_path


def written_rows(
    path: Path, first: int, *, as_messages: bool, names: tuple[str, str] = ("question", "answer")
) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for number in range(first, first + 12):
            question, answer = (
                f"How many are {number} and 3, if each of them is counted once?",
                f"They are {number + 3}.",
            )
            row: dict[str, Any] = dict(zip(names, (question, answer), strict=True))
            if as_messages:
                asked = {"role": "user", "content": question}
                row = {"messages": [asked, {"role": "assistant", "content": answer}]}
            handle.write(json.dumps(row) + "\n")


def written_models(place: Path, tiny_pair: Path, name: str, *, is_chat: bool) -> None:
    has_encoder = PAIRS[name][0].is_encoder_decoder
    tokenizer = (
        t5_tokenizer() if has_encoder else AutoTokenizer.from_pretrained(tiny_pair / "target")
    )
    tokenizer.model_max_length = 4096
    if is_chat:
        tokenizer.chat_template = CHAT
    for role, config in zip(("target", "draft"), PAIRS[name], strict=True):
        torch.manual_seed(len(role))
        model = (AutoModelForSeq2SeqLM if has_encoder else AutoModelForCausalLM).from_config(config)
        model.save_pretrained(place / role)
        tokenizer.save_pretrained(place / role)


def of_the_hub(name: str) -> Recipe:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert isinstance(recipe, Recipe)
    return recipe


def test_every_real_pair_is_tried_here() -> None:
    shipped = {path.stem for path in (ROOT / "recipes").glob("*--*.yaml")}
    assert shipped == set(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
def test_headers_tell_command_hardware_and_what_to_expect(name: str) -> None:
    text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    gpus = "eight GPUs" if "70b" in name else "one GPU"
    for part in (f"./launch.sh recipes/{name}.yaml", f"hardware:  {gpus}", "GiB", "expected:"):
        assert part in text
    recipe = of_the_hub(name)
    assert isinstance(recipe.data.source, HubSource)
    if name in TO_BE_MADE:
        assert f"./launch.sh pretrain recipes/{name.partition('--')[0]}.yaml" in text
        with pytest.raises(
            DistillSpecError, match="no such model folder: 'checkpoints/lm1b/target'"
        ):
            plan(recipe, f"recipes/{name}.yaml")
        return
    assert "would be fetched" in render(plan(recipe, f"recipes/{name}.yaml"))


@pytest.mark.parametrize("name", ["lm1b-234m", "lm1b-33m"])
def test_the_halves_of_a_pair_that_is_made_have_the_sizes_in_their_names(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert isinstance(recipe, PretrainRecipe) and recipe.model is not None
    model = random_llama(recipe.model, vocab_size=32000, end_token=0, seed=0)
    millions = int(name.removeprefix("lm1b-").removesuffix("m"))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("name", PAIRS)
def test_a_step_is_trained_on_small_models_of_the_same_classes(
    place: Path, tiny_pair: Path, name: str
) -> None:
    is_chat = not any(plain in name for plain in ("pythia", "t5", "lm1b"))
    written_models(place, tiny_pair, name, is_chat=is_chat)
    source = of_the_hub(name).data.source
    assert isinstance(source, HubSource)
    as_messages = source.dataset.endswith("ultrachat_200k")
    for file, first in (("rows.jsonl", 0), ("held.jsonl", 50)):
        names = (source.prompt, source.response)
        written_rows(place / file, first, as_messages=as_messages, names=names)
    changes = [
        "pair.target=target",
        "pair.draft=draft",
        "data.source.path=rows.jsonl",
        "data.held_out.path=held.jsonl",
        "data.max_response_tokens=8",
        "distill.batch_size=4",
        "distill.micro_batch_size=2",
        "distill.max_steps=1",
        "distill.probe={every_steps: 1, prompts: 2, max_new_tokens: 4}",
        "hardware.device=cpu",
        "evaluate.control=false",
    ]
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", changes)
    assert isinstance(recipe, Recipe)
    assert distill.train(recipe, None) == 0
    (run,) = (place / "checkpoints" / "runs" / name).iterdir()
    config = json.loads((run / "draft" / "config.json").read_text())
    assert config["vocab_size"] == PAIRS[name][0].vocab_size


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_of_a_published_target_name_their_command_and_the_one_that_fetches_it(
    place: Path, name: str
) -> None:
    text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    command = f"./launch.sh recipes/{name}.yaml"
    for part in (command, "hardware:  2 CPU cores", "expected:"):
        assert part in text
    with pytest.raises(DistillSpecError, match="has not been fetched yet") as caught:
        plan(of_the_hub(name), f"recipes/{name}.yaml")
    assert caught.value.fix == "run this once: distillspec fetch smollm2-135m"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_step_is_trained_on_chats_for_a_small_target(
    place: Path, tiny_pair: Path, name: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_pair / "target")
    tokenizer.chat_template = CHAT
    AutoModelForCausalLM.from_pretrained(tiny_pair / "target").save_pretrained(place / "target")
    tokenizer.save_pretrained(place / "target")
    # The one goes on with a draft whose folder names its tokens, the other makes its draft.
    draft = "{kind: pruned, layers: [0, 1]}"
    if name == "smollm2-135m":
        shutil.copytree(place / "target", place / "draft")
        (place / "draft/hot_token_ids.json").write_text(json.dumps([*range(200)]))
        draft = "draft"
    changes = [
        "pair.target=target",
        f"pair.draft={draft}",
        "pair.draft_head.keep=200",
        "data.max_prompt_tokens=256",
        "data.max_response_tokens=8",
        "data.max_prompts=8",
        "distill.batch_size=4",
        "distill.max_steps=1",
        "distill.probe={every_steps: 1, prompts: 2, max_new_tokens: 4}",
    ]
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", changes)
    assert isinstance(recipe, Recipe)
    assert distill.train(recipe, None) == 0
    (run,) = (place / "checkpoints" / "runs" / name).iterdir()
    target, draft = (
        load_file(folder / "model.safetensors") for folder in (place / "target", run / "draft")
    )
    weight = "model.embed_tokens.weight"
    assert torch.equal(draft[weight], target[weight].to(draft[weight].dtype))


@pytest.mark.parametrize("name", names("comparison"))
def test_a_shipped_comparison_has_variants_that_resolve(
    place: Path, tiny_pair: Path, name: str
) -> None:
    comparison = load_comparison(name)
    if Path(comparison.recipe).stem in PUBLISHED:
        # A target of as many layers stands in for the one that a clean checkout has not fetched.
        config = llama_like(LlamaConfig, 304, tie_word_embeddings=True)
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
        config.update({"num_hidden_layers": 30, "hidden_size": 576, **heads})
        AutoModelForCausalLM.from_config(config).save_pretrained(place / "target")
        tokenizer = AutoTokenizer.from_pretrained(tiny_pair / "target")
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(place / "target")
        changes = ["changes={pair.target: target, pair.draft_head.keep: 200}"]
        comparison = load_comparison(name, changes)
    assert set(checked_variants(comparison)) == set(comparison.variants)
