from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from distillspec.errors import DistillSpecError
from distillspec.export.folder import (
    export_draft,
    fit_vocabulary,
    update_draft,
    verify_export,
    verify_reload,
)
from distillspec.measure.exact.corpus_alpha import acceptance, surprise
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.tied_embeddings import is_tied
from distillspec.models.sampling.generate import DrawnText
from distillspec.models.surgery.adapters import add_lora, merged
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.schema import AdapterConfig
from distillspec.recipe.start import LlamaShape
from distillspec.recipe.written_files import HOT_TOKENS
from distillspec.speculation.sampling import SamplingPolicy
from tests.full_disk import no_file_larger_than

VOCABULARY = 300


@pytest.fixture
def target(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "target"), dtype=torch.float32)


@pytest.fixture
def draft(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32)


@pytest.fixture
def tokenizer(tiny_pair: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(tiny_pair / "draft"))


@pytest.fixture
def texts(target: PreTrainedModel) -> list[DrawnText]:
    """Two texts drawn from the target."""
    generator = torch.Generator().manual_seed(3)
    drawn = []
    for start in (7, 40):
        tokens = [start]
        for _ in range(20):
            p = target(torch.tensor([tokens])).logits[0, -1].softmax(-1).detach()
            tokens.append(int(torch.multinomial(p, 1, generator=generator)))
        drawn.append(DrawnText(tuple(tokens[:4]), tuple(tokens[4:])))
    return drawn


def _export(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    vocab_size: int = VOCABULARY,
    dtype: torch.dtype = torch.float32,
) -> Path:
    return export_draft(
        model,
        tokenizer,
        folder=folder,
        target_vocabulary=vocab_size,
        num_assistant_tokens=3,
        card="# card\n",
        dtype=dtype,
    )


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- the folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ids", "written"), [((), 0), ({0}, 0), ({7}, 7), ({9, 0, 7}, [0, 7, 9])])
def test_the_export_names_what_ends_a_text_of_the_pair(
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    ids: set[int],
    written: int | list[int],
) -> None:
    export_draft(
        draft,
        tokenizer,
        folder=tmp_path / "draft",
        target_vocabulary=VOCABULARY,
        num_assistant_tokens=2,
        card="card",
        stop_ids=ids,
    )
    settings = json.loads((tmp_path / "draft" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == written


def test_the_folder_holds_a_plain_hugging_face_model(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft")
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["draft"]


def test_generation_config_recommends_the_block_size(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft")
    settings = json.loads((folder / "generation_config.json").read_text())
    assert settings["num_assistant_tokens"] == 3
    assert settings["num_assistant_tokens_schedule"] == "constant"
    assert settings["assistant_confidence_threshold"] == 0.0
    assert settings["eos_token_id"] == 0


def test_sampling_settings_that_contradict_each_other_do_not_stop_the_export(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    assert draft.generation_config is not None
    draft.generation_config.do_sample = False
    draft.generation_config.temperature = 0.6
    settings = json.loads(
        (_export(draft, tokenizer, tmp_path / "draft") / "generation_config.json").read_text()
    )
    assert "temperature" not in settings


def test_float32_weights_come_back_bit_for_bit(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft")
    again = load_model(str(folder), dtype=torch.float32).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in draft.state_dict().items())


def test_bfloat16_is_stored_and_named(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft", dtype=torch.bfloat16)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    again = load_model(str(folder), dtype=torch.bfloat16).state_dict()
    for name, tensor in draft.state_dict().items():
        assert torch.equal(again[name], tensor.to(torch.bfloat16))


def test_the_trained_model_is_left_as_it_was(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    before = _weights(draft)
    settings = draft.generation_config
    _export(draft, tokenizer, tmp_path / "draft", vocab_size=320, dtype=torch.bfloat16)
    assert draft.dtype == torch.float32
    assert draft.config.vocab_size == VOCABULARY
    assert draft.generation_config is settings
    assert all(torch.equal(before[name], now) for name, now in draft.state_dict().items())


# peft 0.21 asks transformers 5.23 for an attribute under its older name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_merged_adapters_are_exported_as_plain_weights(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    adapted = add_lora(draft, AdapterConfig(rank=2))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    tokens = torch.tensor([[5, 6, 7]])
    expected = adapted(tokens).logits
    folder = _export(merged(adapted), tokenizer, tmp_path / "draft")
    again = load_model(str(folder), dtype=torch.float32)
    torch.testing.assert_close(again(tokens).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_second_export_replaces_the_first_wholly(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft")
    (folder / HOT_TOKENS).write_text("[1]")
    _export(draft, tokenizer, tmp_path / "draft")
    assert not (folder / HOT_TOKENS).exists()
    assert [file.name for file in tmp_path.iterdir()] == ["draft"]


def test_an_export_does_not_replace_other_files_in_its_folder(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft")
    (folder / "draft.gguf").write_text("converted")
    with pytest.raises(DistillSpecError, match=r"other files: draft\.gguf"):
        _export(draft, tokenizer, tmp_path / "draft")
    assert (folder / "draft.gguf").read_text() == "converted"


def test_a_full_disk_leaves_the_older_export_complete(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    older = tmp_path / "draft"
    older.mkdir()
    (older / "README.md").write_text("old")
    with pytest.raises(DistillSpecError, match="writing failed"), no_file_larger_than(4096):
        _export(draft, tokenizer, older)
    assert (older / "README.md").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["draft"]


def test_a_tokenizer_beyond_the_targets_vocabulary_is_refused(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(DistillSpecError, match="ids up to 299"):
        _export(draft, tokenizer, tmp_path / "draft", vocab_size=299)
    assert list(tmp_path.iterdir()) == []


# --- vocabulary ----------------------------------------------------------------------------------


def _untied(vocab_size: int) -> LlamaForCausalLM:
    shape = LlamaShape(hidden_size=16, intermediate_size=32, layers=1, heads=2)
    model = random_llama(shape, vocab_size=vocab_size, end_token=0, seed=4)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.config.tie_word_embeddings = False
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_padding_changes_no_logit_of_a_real_token(draft: PreTrainedModel, tied: bool) -> None:
    model = draft if tied else _untied(VOCABULARY)
    tokens = torch.tensor([[9, 8, 7]])
    before = model(tokens).logits
    fit_vocabulary(model, 364)
    after = model(tokens).logits
    assert model.config.vocab_size == 364
    assert after.shape[-1] == 364
    assert torch.equal(after[..., :VOCABULARY], before)


@pytest.mark.parametrize("tied", [True, False])
def test_a_padding_row_never_gets_more_than_its_share(draft: PreTrainedModel, tied: bool) -> None:
    """The logit of a mean row is the mean logit: geometric mean <= arithmetic mean = 1/V."""
    model = draft if tied else _untied(VOCABULARY)
    fit_vocabulary(model, 310)
    q = model(torch.arange(VOCABULARY)[:, None]).logits[:, -1].softmax(-1)
    assert (q[:, VOCABULARY:] <= q[:, :VOCABULARY].mean(-1, keepdim=True)).all()
    geometric = q[:, :VOCABULARY].log().mean(-1, keepdim=True).exp()
    torch.testing.assert_close(q[:, VOCABULARY:], geometric.expand(-1, 10), rtol=1e-3, atol=0)


def test_a_bias_of_the_head_is_padded_like_its_rows() -> None:
    model = _untied(20)
    model.lm_head.bias = torch.nn.Parameter(torch.randn(20) * 3)
    fit_vocabulary(model, 24)
    logits = model(torch.tensor([[1, 2]])).logits
    mean = logits[..., :20].mean(-1, keepdim=True).expand(-1, -1, 4)
    torch.testing.assert_close(logits[..., 20:], mean, rtol=1e-4, atol=1e-5)


def test_trimming_changes_no_logit_that_stays(draft: PreTrainedModel) -> None:
    wide = copy.deepcopy(draft)
    fit_vocabulary(wide, 400)
    tokens = torch.tensor([[9, 8, 7]])
    fit_vocabulary(wide, VOCABULARY)
    assert torch.equal(wide(tokens).logits, draft(tokens).logits)


def test_a_padded_draft_is_reloaded_strictly(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft", vocab_size=384)
    again = load_model(str(folder), dtype=torch.float32)
    assert again.config.vocab_size == 384
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight


def test_a_padding_token_that_the_models_lack_is_exported_with_the_tokenizer_alone(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    fit_vocabulary(draft, 320)
    for settings in (draft.config, draft.generation_config):
        settings.pad_token_id = 300
    folder = _export(draft, tokenizer, tmp_path / "draft")
    again = load_model(str(folder), dtype=torch.float32)
    assert (again.config.vocab_size, again.config.pad_token_id) == (VOCABULARY, None)
    assert again.generation_config is not None
    assert again.generation_config.pad_token_id is None
    assert load_tokenizer(str(folder)).pad_token_id == 300


@pytest.mark.parametrize("vocab_size", [VOCABULARY, VOCABULARY + 20])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "qwen2", "gemma2", "gemma3 shell", "gpt-neox", "t5", "t5 v1.1"]
)
def test_an_export_gives_the_same_logits_in_plain_transformers(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, family: str, tied: bool, vocab_size: int
) -> None:
    model = _of_family(family)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if tied:
        head.weight = embedding.weight
    else:  # whatever the configuration says, as after a merge over both
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
    row = torch.arange(9, 15)[None]
    before = _logits(model, row)
    folder = _export(model, tokenizer, tmp_path / "d", vocab_size=vocab_size, dtype=torch.float32)
    kind: Any = AutoModelForSeq2SeqLM if "t5" in family else AutoModelForCausalLM
    again, reported = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(reported[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(_logits(again, row)[..., :VOCABULARY], before)
    assert again.config.get_text_config(decoder=True).vocab_size == vocab_size
    assert is_tied(again) == tied
    if "t5" not in family:
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] == tied


def _logits(model: PreTrainedModel, row: torch.Tensor) -> torch.Tensor:
    inputs = {"decoder_input_ids": row} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=row, **inputs).logits
    return logits


def _of_family(family: str) -> PreTrainedModel:
    """A float32 model of 300 tokens with random weights."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    }
    grouped = {**shape, "num_key_value_heads": 1, "head_dim": 8}
    t5 = {
        "vocab_size": VOCABULARY,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    shell = {
        "mm_tokens_per_image": 4,
        "image_token_index": 299,
        "boi_token_index": 298,
        "eoi_token_index": 297,
    }
    made: dict[str, Callable[[], PreTrainedModel]] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, eos_token_id=0)
        ),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**grouped)),
        "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**grouped)),
        "gemma3 shell": lambda: Gemma3ForConditionalGeneration(
            Gemma3Config(text_config=grouped, vision_config=vision, **shell)
        ),
        "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**shape)),
        "t5": lambda: T5ForConditionalGeneration(T5Config(**t5)),
        "t5 v1.1": lambda: T5ForConditionalGeneration(T5Config(**t5, tie_word_embeddings=False)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return made[family]()


# --- update --------------------------------------------------------------------------------------


def test_the_recommendation_and_the_card_are_brought_up_to_date(
    draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft")
    update_draft(folder, num_assistant_tokens=7, card="# measured\n")
    again = load_model(str(folder), dtype=torch.float32).generation_config
    assert again is not None
    assert again.num_assistant_tokens == 7
    assert again.num_assistant_tokens_schedule == "constant"
    assert (folder / "README.md").read_text() == "# measured\n"


def test_a_folder_that_is_no_export_cannot_be_updated(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="not a draft exported"):
        update_draft(tmp_path, num_assistant_tokens=7, card="")


# --- proof ---------------------------------------------------------------------------------------


def test_an_export_agrees_with_training(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[DrawnText],
    tmp_path: Path,
) -> None:
    policy = SamplingPolicy()
    trained = acceptance(target, draft, texts, policy).mean()
    assert 0.05 < trained < 0.95
    folder = _export(draft, tokenizer, tmp_path / "draft", dtype=torch.bfloat16)
    alpha = verify_export(folder, target, texts, policy, expected_alpha=trained)
    assert alpha == pytest.approx(trained, abs=0.01)


def test_an_export_of_other_weights_is_found_out(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[DrawnText],
    tmp_path: Path,
) -> None:
    policy = SamplingPolicy()
    trained = acceptance(target, draft, texts, policy).mean()
    with torch.no_grad():
        draft.get_input_embeddings().weight.mul_(3.0)
    folder = _export(draft, tokenizer, tmp_path / "draft")
    with pytest.raises(DistillSpecError, match="not the trained draft"):
        verify_export(folder, target, texts, policy, expected_alpha=trained)


def test_an_alpha_that_is_no_number_is_found_out(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[DrawnText],
    tmp_path: Path,
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft")
    with pytest.raises(DistillSpecError, match="not the trained draft"):
        verify_export(folder, target, texts, SamplingPolicy(), expected_alpha=float("nan"))


def test_an_export_of_another_size_than_the_targets_is_found_out(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[DrawnText],
    tmp_path: Path,
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft", vocab_size=320)
    with pytest.raises(DistillSpecError, match="vocabulary of 320 tokens, the target 300"):
        verify_export(folder, target, texts, SamplingPolicy(), expected_alpha=0.5)


def test_a_target_exported_as_its_own_draft_has_alpha_one(
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[DrawnText],
    tmp_path: Path,
) -> None:
    folder = _export(target, tokenizer, tmp_path / "draft")
    alpha = verify_export(folder, target, texts, SamplingPolicy(), expected_alpha=1.0)
    assert alpha == pytest.approx(1.0, abs=1e-5)


# --- an engine -----------------------------------------------------------------------------------


def test_transformers_decodes_with_the_exported_draft_and_emits_the_targets_own_text(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft", dtype=torch.bfloat16)
    exported = load_model(str(folder), dtype=torch.float32)
    drafted: list[int] = []
    exported.register_forward_hook(lambda *_: drafted.append(1))
    for prompt in ("def f(x):\n", "import os", "class A"):
        inputs = tokenizer(prompt, return_tensors="pt")
        settings = {"do_sample": False, "max_new_tokens": 40, "pad_token_id": 0}
        alone = target.generate(**inputs, **settings)
        assisted = target.generate(**inputs, **settings, assistant_model=exported)
        assert torch.equal(alone, assisted)
    assert drafted


def test_without_a_target_the_reloaded_draft_is_compared_by_its_loss(
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[DrawnText],
    tmp_path: Path,
) -> None:
    folder = _export(draft, tokenizer, tmp_path / "draft", dtype=torch.bfloat16)
    found = verify_reload(folder, draft, texts)
    assert found == pytest.approx(surprise(draft, texts).mean(), abs=0.1)
    assert draft.dtype == torch.float32
    with torch.no_grad():
        draft.get_input_embeddings().weight.mul_(3.0)
    with pytest.raises(DistillSpecError, match="not the trained draft"):
        verify_reload(folder, draft, texts)
    with torch.no_grad():
        draft.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(DistillSpecError, match="NaN or infinite"):
        verify_reload(folder, draft, texts)


def test_updates_that_rounding_loses_are_no_fault_of_the_folder(
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[DrawnText],
    tmp_path: Path,
) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in draft.parameters():
            weight.copy_(weight.to(torch.bfloat16))
            weight.mul_(1.0 + 1e-3 * torch.randn(weight.shape, generator=generator))
    folder = _export(draft, tokenizer, tmp_path / "draft", dtype=torch.bfloat16)
    trained, reloaded = surprise(draft, texts).mean(), verify_reload(folder, draft, texts)
    assert reloaded != pytest.approx(trained, abs=1e-4)
