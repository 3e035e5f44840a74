from pathlib import Path

from transformers import AutoTokenizer

from distillspec.models.vocabulary.train_tokenizer import END_OF_TEXT, train_tokenizer

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
