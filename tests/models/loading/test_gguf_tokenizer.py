from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from distillspec.errors import DistillSpecError
from distillspec.models.loading.gguf_header import GgufHeader
from distillspec.models.loading.gguf_tokenizer import check_tokenizer, finish_tokenizer

TEXT = "don't  DON'T 12345\n\n 67 Ⅷ.x"


def header(model: str = "gpt2", pre: str | None = None, **settings: Any) -> GgufHeader:
    named = {f"tokenizer.ggml.{name}": value for name, value in settings.items()}
    named |= {"general.architecture": "llama", "tokenizer.ggml.model": model}
    if pre is not None:
        named["tokenizer.ggml.pre"] = pre
    return GgufHeader(Path("tiny.gguf"), named, ("token_embd.weight",), None)


@pytest.fixture
def byte_level(tiny_pair: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(tiny_pair / "target")
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def pieces(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    cut = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(TEXT)
    return [TEXT[start:end] for _, (start, end) in cut]


# Written out by hand from the models' own tokenizer.json.
GPT2 = ["don", "'t", " ", " DON", "'", "T", " 12345", "\n\n", " 67", " Ⅷ", ".", "x"]
DIGITS = ["don", "'t", " ", " DON", "'", "T", " ", "1", "2", "3", "4", "5", "\n\n "]
DIGITS += ["6", "7", " ", "Ⅷ", ".", "x"]
LLAMA3 = ["don", "'t", " ", " DON", "'T", " ", "123", "45", "\n\n", " ", "67", " ", "Ⅷ", ".x"]
QWEN2 = ["don", "'t", " ", " DON", "'T", " ", "1", "2", "3", "4", "5", "\n\n"]
QWEN2 += [" ", "6", "7", " ", "Ⅷ", ".x"]
TEKKEN = QWEN2  # sets no contractions apart, but an apostrophe begins a word


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("gpt-2", GPT2),
        ("phi-2", GPT2),
        ("smollm", DIGITS),
        ("starcoder", DIGITS),
        ("llama-bpe", LLAMA3),
        ("qwen2", QWEN2),
        ("qwen35", QWEN2),
        ("tekken", TEKKEN),
    ],
)
def test_text_is_cut_as_the_file_states_and_stays_so(
    byte_level: PreTrainedTokenizerFast, tmp_path: Path, pre: str, expected: list[str]
) -> None:
    check_tokenizer(header(pre=pre))
    finish_tokenizer(header(pre=pre, add_bos_token=False), byte_level)
    byte_level.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert pieces(again) == expected
    assert again.decode(again.encode(TEXT)) == TEXT


def test_unicode_is_composed_and_whole_tokens_are_taken_where_the_models_do_so(
    byte_level: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    finish_tokenizer(header(pre="qwen2"), byte_level)
    assert byte_level.encode("A\u030a") == byte_level.encode("\u00c5")
    finish_tokenizer(header(pre="llama-bpe"), byte_level)
    assert byte_level.encode("A\u030a") != byte_level.encode("\u00c5")
    byte_level.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["model"]["ignore_merges"] is True
    assert saved["normalizer"] is None


@pytest.mark.parametrize(
    ("pre", "settings", "begins"),
    [
        ("llama-bpe", {}, True),
        ("llama-bpe", {"add_bos_token": False}, False),
        ("qwen2", {}, False),
    ],
)
def test_a_text_begins_as_llama_cpp_has_it_where_the_file_is_silent(
    byte_level: PreTrainedTokenizerFast,
    tmp_path: Path,
    pre: str,
    settings: dict[str, Any],
    begins: bool,
) -> None:
    byte_level.bos_token = byte_level.eos_token
    finish_tokenizer(header(pre=pre, **settings), byte_level)
    byte_level.save_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path).encode("a")
    assert (ids[0] == byte_level.bos_token_id) == begins


@pytest.mark.parametrize("pre", ["falcon", "default", "deepseek-coder", "anything"])
def test_an_unknown_way_of_cutting_is_refused(pre: str) -> None:
    with pytest.raises(DistillSpecError, match=f"splits text as '{pre}'") as caught:
        check_tokenizer(header(pre=pre))
    assert "Hugging Face folder" in caught.value.fix


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(DistillSpecError, match="'rwkv'"):
        check_tokenizer(header("rwkv"))


def test_a_file_that_does_not_state_it_is_refused() -> None:
    with pytest.raises(DistillSpecError, match="tokenizer.ggml.pre"):
        check_tokenizer(header())


def test_a_sentencepiece_model_cuts_in_one_way() -> None:
    check_tokenizer(header("llama"))
    check_tokenizer(header("llama", "default"))
    with pytest.raises(
        DistillSpecError, match="SentencePiece model that splits text as 'llama-bpe'"
    ):
        check_tokenizer(header("llama", "llama-bpe"))


def test_the_space_before_a_text_is_what_the_file_states() -> None:
    vocab_size = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "▁a": 5}
    tokenizer = LlamaTokenizer(vocab=vocab_size, merges=[("▁", "a")])
    finish_tokenizer(header("llama"), tokenizer)
    finish_tokenizer(header("llama", add_space_prefix=True), tokenizer)
    with pytest.raises(DistillSpecError, match="puts no space before each text"):
        finish_tokenizer(header("llama", add_space_prefix=False), tokenizer)
