from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AddedToken, PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_tokenizer
from distillspec.models.vocabulary.tokenizer_pair import (
    check_in_vocabulary,
    check_pair,
    padding_token,
    vocabulary_digest,
)
from distillspec.runtime.notes import say_once

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def changed(tiny_pair: Path, tmp_path: Path) -> Callable[[Change], PreTrainedTokenizerBase]:
    """The tiny tokenizer after a change to its tokenizer.json."""

    def make(change: Change) -> PreTrainedTokenizerBase:
        folder = Path(shutil.copytree(tiny_pair / "draft", tmp_path / "draft"))
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))
        return load_tokenizer(str(folder))

    return make


def test_equal_tokenizers_share_the_smaller_padded_size(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert check_pair(tokenizer, tokenizer, 300, 300, "pair") == 300
    assert check_pair(tokenizer, tokenizer, 320, 304, "pair") == 304
    assert check_pair(tokenizer, tokenizer, 304, 320, "pair") == 304


def test_a_digest_is_of_tokens_and_ids_in_any_order(
    tokenizer: PreTrainedTokenizerBase, changed: Callable[[Change], PreTrainedTokenizerBase]
) -> None:
    def turn(content: dict[str, Any]) -> None:
        vocab_size = content["model"]["vocab"]
        content["model"]["vocab"] = dict(reversed(vocab_size.items()))

    assert vocabulary_digest(changed(turn)) == vocabulary_digest(tokenizer)


def test_a_digest_changes_with_the_id_of_a_token(
    tokenizer: PreTrainedTokenizerBase, changed: Callable[[Change], PreTrainedTokenizerBase]
) -> None:
    def swap(content: dict[str, Any]) -> None:
        vocab_size = content["model"]["vocab"]
        first, second = list(vocab_size)[50:52]
        vocab_size[first], vocab_size[second] = vocab_size[second], vocab_size[first]

    assert vocabulary_digest(changed(swap)) != vocabulary_digest(tokenizer)


def test_a_model_smaller_than_the_tokenizer_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DistillSpecError, match="ids up to 299, but the draft's output ends at 289"):
        check_pair(tokenizer, tokenizer, 300, 290, "pair")


def test_tokens_of_one_side_are_counted_and_named(
    tokenizer: PreTrainedTokenizerBase, changed: Callable[[Change], PreTrainedTokenizerBase]
) -> None:
    def shorten(content: dict[str, Any]) -> None:
        merge = content["model"]["merges"].pop()
        del content["model"]["vocab"]["".join(merge)]

    with pytest.raises(DistillSpecError, match=r"300 tokens in .* 299 in .*; 1 only in the target"):
        check_pair(tokenizer, changed(shorten), 300, 300, "pair")


def test_moved_tokens_are_counted_and_the_first_is_named(
    tokenizer: PreTrainedTokenizerBase, changed: Callable[[Change], PreTrainedTokenizerBase]
) -> None:
    def swap(content: dict[str, Any]) -> None:
        vocab_size = content["model"]["vocab"]
        names = {index: token for token, index in vocab_size.items()}
        vocab_size[names[5]], vocab_size[names[6]] = 6, 5

    with pytest.raises(DistillSpecError, match=r"2 under another id \(first: .* is 5 in .* 6 in"):
        check_pair(tokenizer, changed(swap), 300, 300, "pair")


def test_equal_tokens_with_other_merges_are_found_by_the_probe(
    tokenizer: PreTrainedTokenizerBase, changed: Callable[[Change], PreTrainedTokenizerBase]
) -> None:
    def forget_merges(content: dict[str, Any]) -> None:
        content["model"]["merges"] = []

    with pytest.raises(DistillSpecError, match="split differently"):
        check_pair(tokenizer, changed(forget_merges), 300, 300, "pair")


def test_another_normalisation_is_found_by_the_probe(
    tokenizer: PreTrainedTokenizerBase, changed: Callable[[Change], PreTrainedTokenizerBase]
) -> None:
    def lower_case(content: dict[str, Any]) -> None:
        content["normalizer"] = {"type": "Lowercase"}

    with pytest.raises(DistillSpecError, match="split differently"):
        check_pair(tokenizer, changed(lower_case), 300, 300, "pair")


# --- padding: tokens that no text has -------------------------------------------------------------


def grown(tiny_pair: Path, *tokens: str, template: str | None = None) -> PreTrainedTokenizerBase:
    """The tiny tokenizer (300 tokens) with added ones behind its last."""
    tokenizer = load_tokenizer(str(tiny_pair / "draft"))
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("rows", [(300, 300), (301, 300), (320, 310)])
def test_a_padding_token_that_only_one_tokenizer_has_is_ruled_out(
    tokenizer: PreTrainedTokenizerBase,
    tiny_pair: Path,
    caplog: pytest.LogCaptureFixture,
    rows: tuple[int, int],
) -> None:
    padded = grown(tiny_pair, "[PAD]")
    padded.pad_token = "[PAD]"
    assert check_pair(tokenizer, padded, *rows, "pair") == 300
    assert check_pair(padded, tokenizer, *rows, "pair") == 300
    say_once.cache_clear()
    check_pair(tokenizer, padded, *rows, "pair")
    assert "ruled out for both models" in caplog.text
    assert "'[PAD]' = 300" in caplog.text
    assert padding_token(padded, 300, 7) == padding_token(padded, 299, 7) == 7
    assert padding_token(padded, 301, 7) == padding_token(padded, None, 7) == 300


def test_different_tokens_at_the_end_of_both_are_ruled_out(tiny_pair: Path) -> None:
    first, second = grown(tiny_pair, "<soft>", "<one>"), grown(tiny_pair, "<soft>", "<other>")
    assert check_pair(first, second, 302, 302, "pair") == 301
    assert check_pair(first, second, 300, 302, "pair") == 300


def test_a_token_that_no_model_has_a_row_for_is_ruled_out(tiny_pair: Path) -> None:
    tokenizer = grown(tiny_pair, "<soft>")
    assert check_pair(tokenizer, tokenizer, 300, 300, "pair") == 300
    assert check_pair(tokenizer, tokenizer, 301, 301, "pair") == 301


@pytest.mark.parametrize("rows", [(300, 300), (301, 300)])
def test_a_token_that_texts_have_is_never_ruled_out(tiny_pair: Path, rows: tuple[int, int]) -> None:
    plain, templated = grown(tiny_pair), grown(tiny_pair, "<call>", template="{{ '<call>' }}")
    ended = grown(tiny_pair, "<end>")
    ended.eos_token = "<end>"
    for tokenizer in (templated, ended):
        with pytest.raises(DistillSpecError, match="'<(call|end)>' = 300|ids up to 300"):
            check_pair(tokenizer, tokenizer, *rows, "pair")
        with pytest.raises(DistillSpecError, match="different tokenizers"):
            check_pair(tokenizer, plain, *rows, "pair")


def test_a_text_with_a_token_that_is_ruled_out_is_named(tiny_pair: Path) -> None:
    tokenizer = grown(tiny_pair, "<soft>")
    texts = {name: tokenizer.encode(name) for name in ("a b", "a <soft> b")}
    check_in_vocabulary(texts.items(), 301, tokenizer)
    with pytest.raises(
        DistillSpecError, match="the token '<soft>' .300., .* ends at 299"
    ) as caught:
        check_in_vocabulary(texts.items(), 300, tokenizer)
    assert caught.value.where == "a <soft> b"


def test_another_padding_token_of_the_same_vocabulary_is_no_difference(
    tokenizer: PreTrainedTokenizerBase, tiny_pair: Path
) -> None:
    padded = load_tokenizer(str(tiny_pair / "draft"))
    padded.pad_token = "a"
    assert check_pair(tokenizer, padded, 300, 300, "pair") == 300


def test_another_end_of_text_is_found(tokenizer: PreTrainedTokenizerBase, tiny_pair: Path) -> None:
    changed = load_tokenizer(str(tiny_pair / "draft"))
    changed.eos_token = "a"
    with pytest.raises(DistillSpecError, match=r"end of text is '<\|endoftext\|>' \(0\)"):
        check_pair(tokenizer, changed, 300, 300, "recipe.yaml: pair")
