from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.train_tokenizer import END_OF_TEXT, split_by, train_tokenizer

TEXTS = ["def function(self):\n        return self.value\n"] * 50


def test_the_vocabulary_has_the_size_asked_for_and_end_of_text_is_zero() -> None:
    tokenizer = train_tokenizer(TEXTS, 270)
    assert len(tokenizer) == 270
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == tokenizer.eos_token_id == 0


def test_any_text_survives_encoding_and_decoding(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 270).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("naïve — ✓\r\n\tx = 1_000\n\n\n    y", "  leading", " ( a , b ) "):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_indentation_is_one_token() -> None:
    tokenizer = train_tokenizer(TEXTS, 290)
    pieces = tokenizer.tokenize("(self):\n        return")
    assert any(piece.startswith("Ġ" * 6) for piece in pieces)


def pieces_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return [p for p, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def test_a_new_tokenizer_splits_text_as_llama_cpp_does_by_the_name_qwen2() -> None:
    """Contractions and single digits are pieces of their own; words take one sign before them."""
    pieces = pieces_of(train_tokenizer(TEXTS, 270), "'vector' it's x=120")
    assert pieces == ["'ve", "ctor", "'", "Ġit", "'s", "Ġx", "=", "1", "2", "0"]


def test_the_pattern_of_a_tokenizer_is_replaced_and_its_tokens_stay(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 290)
    before = tokenizer.get_vocab()
    split_by(tokenizer, "llama-bpe")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == before
    assert pieces_of(loaded, "it's 1234") == ["it", "'s", "Ġ", "123", "4"]
    # llama.cpp takes a piece that is a token as it is.
    assert loaded.backend_tokenizer.model.ignore_merges
    assert loaded.decode(loaded("def x(self):\n  1")["input_ids"]) == "def x(self):\n  1"


def test_a_tokenizer_of_another_kind_keeps_its_pattern() -> None:
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(DistillSpecError, match="byte-level BPE"):
        split_by(PreTrainedTokenizerFast(tokenizer_object=words), "qwen2")
