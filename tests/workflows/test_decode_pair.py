"""The models of `decode`: folders or loaded models, and the tokens of a prompt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.vocabulary.trimmed_head import kept_tokens
from distillspec.workflows.decode_pair import folder_of, load_decode_pair
from tests.models.two_tokenizers import save_other_draft
from tests.seq2seq import START, written_pair


def test_a_model_that_is_loaded_is_used_as_it_is(tiny_pair: Path) -> None:
    target = load_model(str(tiny_pair / "target"), dtype=torch.float32, what="target")
    tokenizer = load_tokenizer(str(tiny_pair / "target"))
    pair = load_decode_pair(target, tiny_pair / "draft", tokenizer, allows_two_tokenizers=False)
    assert pair.target is target
    assert pair.tokenizer is tokenizer
    assert (pair.vocab_size, pair.token_map, pair.has_encoder) == (300, None, False)
    assert folder_of(target) == folder_of(tiny_pair / "target")


def test_a_draft_is_decoded_with_the_head_that_it_was_trained_with(
    tiny_pair: Path, tmp_path: Path
) -> None:
    draft = Path(shutil.copytree(tiny_pair / "draft", tmp_path / "draft"))
    (draft / "hot_token_ids.json").write_text("[0, 5, 11]")
    pair = load_decode_pair(tiny_pair / "target", draft, None, allows_two_tokenizers=True)
    kept = kept_tokens(pair.draft)
    assert kept is not None and kept.tolist() == [0, 5, 11]
    assert kept_tokens(pair.target) is None


def test_another_tokenizer_is_bridged_where_the_method_allows_it(
    tiny_pair: Path, tmp_path: Path
) -> None:
    save_other_draft(tmp_path / "other")
    models = tiny_pair / "target", tmp_path / "other"
    pair = load_decode_pair(*models, None, allows_two_tokenizers=True)
    assert pair.token_map is not None
    assert pair.vocab_size == 300
    with pytest.raises(DistillSpecError, match="different tokenizers"):
        load_decode_pair(*models, None, allows_two_tokenizers=False)


def test_a_prompt_must_have_tokens(tiny_pair: Path) -> None:
    pair = load_decode_pair(
        tiny_pair / "target", tiny_pair / "draft", None, allows_two_tokenizers=False
    )
    tokens = pair.encode("def f(x):", 8)
    assert pair.tokenizer.decode(tokens) == "def f(x):"
    with pytest.raises(DistillSpecError, match="no tokens"):
        pair.encode("", 8)


def test_the_prompt_of_an_encoder_decoder_pair_ends_with_the_start_token(tmp_path: Path) -> None:
    folder = written_pair(tmp_path / "t5")
    pair = load_decode_pair(folder / "target", folder / "draft", None, allows_two_tokenizers=True)
    assert pair.has_encoder
    ids = pair.encode("a b", 4)
    assert ids[-1] == START
    assert ids.count(START) == 1
