from __future__ import annotations

import copy

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.cross_tokenizer import (
    CrossTokenizerMap,
    attach_token_map,
    token_map_of,
)
from tests.models.conftest import tiny_model
from tests.models.two_tokenizers import END, byte_level, sentencepiece, word_level


def mapped(
    target: PreTrainedTokenizerFast, draft: PreTrainedTokenizerFast, sizes: tuple[int, int]
) -> CrossTokenizerMap:
    return CrossTokenizerMap(target, draft, *sizes, where="here")


def shared(token_map: CrossTokenizerMap) -> dict[int, int]:
    return dict(zip(token_map.target_ids.tolist(), token_map.draft_ids.tolist(), strict=True))


def test_tokens_of_the_same_bytes_are_shared_under_the_ids_of_each() -> None:
    token_map = mapped(byte_level([END, "a", "b", "ab"]), byte_level(["b", END, "a", "ba"]), (4, 4))
    assert shared(token_map) == {0: 1, 1: 2, 2: 0}
    assert [token_map.pieces(token) for token in range(4)] == [(1,), (2,), (0,), (2, 0)]


def test_the_two_conventions_of_spaces_and_bytes_are_one() -> None:
    """Byte 0xC3 is half of an e with an accent: one token there, a byte to fall back on here."""
    target = byte_level([END, "\u0120a", "a", "\u0120", "\u00c3", "\u00c3\u00a9"])
    draft = sentencepiece(["<0xC3>", "<0xA9>", "\u2581a", END, "\u2581", "a", "<0x61>"])
    token_map = mapped(target, draft, (6, 7))
    assert shared(token_map) == {0: 3, 1: 2, 2: 5, 3: 4, 4: 0}
    assert token_map.pieces(5) == (0, 1)


def test_a_piece_goes_before_the_byte_of_the_same_spelling() -> None:
    token_map = mapped(byte_level([END, "a"]), sentencepiece([END, "<0x61>", "a"]), (2, 3))
    assert shared(token_map) == {0: 0, 1: 2}


def test_special_tokens_are_shared_by_content_or_role_and_are_no_text() -> None:
    target = byte_level(["</s>", "<x>", "a", "x"], special=("</s>", "<x>"))
    draft = byte_level(["<", "x", ">", "a", END, "<x>"], special=(END,))
    token_map = mapped(target, draft, (4, 6))
    assert shared(token_map) == {0: 4, 2: 3, 3: 1}
    assert token_map.pieces(1) == (5,)  # plain text to the draft


def test_what_the_draft_cannot_spell_is_read_as_an_end() -> None:
    token_map = mapped(byte_level([END, "a", "b"]), byte_level([END, "a"]), (5, 2))
    assert token_map.pieces(2) == (0,)
    assert token_map.pieces(4) == (0,)  # padding of the output: no token at all


def test_a_token_of_the_draft_stands_for_one_of_the_targets() -> None:
    target = byte_level(["</s>", "<pad>", "a"], special=("</s>", "<pad>"))
    target.pad_token = "<pad>"
    draft = byte_level([END, "a"])
    draft.pad_token = END
    assert shared(mapped(target, draft, (3, 2))) == {0: 0, 2: 1}


def test_the_end_of_text_goes_before_a_beginning_of_a_lower_id() -> None:
    """As of Llama's target and GPT-2's draft, whose one token begins and ends a text."""
    target = byte_level(["<s>", "</s>", "a"], special=("</s>", "<s>"))
    target.bos_token = "<s>"
    draft = byte_level([END, "a"])
    draft.bos_token = END
    token_map = mapped(target, draft, (3, 2))
    assert shared(token_map) == {1: 0, 2: 1}
    assert token_map.pieces(0) == token_map.pieces(1) == (0,)  # both are read


def test_logits_are_moved_to_the_targets_ids_and_others_are_ruled_out() -> None:
    token_map = mapped(byte_level([END, "a", "b", "ab"]), byte_level(["b", END, "a", "ba"]), (5, 4))
    logits = token_map.logits(torch.tensor([[10.0, 11.0, 12.0, 13.0]]))
    assert logits.tolist() == [[11.0, 12.0, 10.0, -torch.inf, -torch.inf]]


def test_ids_beyond_a_models_output_are_not_shared() -> None:
    tokens = byte_level([END, "a", "b"])
    assert shared(mapped(tokens, tokens, (3, 2))) == {0: 0, 1: 1}


def test_tokens_of_another_spelling_are_refused() -> None:
    with pytest.raises(DistillSpecError, match="spell text"):
        mapped(byte_level([END, "a"]), word_level(["a", "b"]), (2, 2))


def test_vocabularies_that_share_nothing_are_refused() -> None:
    with pytest.raises(DistillSpecError, match="share no token"):
        mapped(byte_level(["a"], special=()), byte_level(["b"], special=()), (1, 1))


def test_rows_are_read_piece_by_piece_and_each_token_ends_at_a_known_place() -> None:
    token_map = mapped(byte_level([END, "a", "b", "ab"]), byte_level(["b", END, "a", "ba"]), (4, 4))
    tokens = torch.tensor([[3, 1, 3], [1, 2, 0]])
    pieces = token_map.rows(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert pieces.tokens.tolist() == [[2, 0, 2, 2, 0], [2, 0, 1, 1, 1]]
    assert pieces.last.tolist() == [[1, 2, 4], [0, 1, 2]]


def test_padding_is_not_cut_into_pieces() -> None:
    """The target's padding spells a special token, which is six pieces of the draft's."""
    target = byte_level(["<long>", "a", "b", END], special=(END, "<long>"))
    token_map = mapped(target, byte_level([*"<long>ab", END]), (4, 9))
    assert len(token_map.pieces(0)) == 6
    tokens = torch.tensor([[1, 0, 0, 0], [1, 2, 0, 0]])
    is_token = torch.tensor([[True, False, False, False], [True, True, False, False]])
    pieces = token_map.rows(tokens, is_token)
    assert pieces.tokens.tolist() == [[6, 8], [6, 7]]
    assert pieces.last[is_token].tolist() == [0, 0, 1]
    assert bool((pieces.last < pieces.tokens.shape[1]).all())
    assert token_map.rows(tokens[:1], ~is_token[:1] & is_token[:1]).tokens.shape == (1, 1)


def test_tokens_are_within_as_many_places_as_their_pieces_take() -> None:
    token_map = mapped(byte_level([END, "a", "b", "ab"]), byte_level(["b", END, "a", "ba"]), (4, 4))
    tokens, is_token = torch.tensor([[3, 1, 3, 0]]), torch.tensor([[True, True, True, False]])
    for count, expected in ((5, 3), (4, 2), (3, 2), (2, 1), (1, 0)):
        within = token_map.is_within(tokens, is_token, count)
        assert within.tolist() == [[number < expected for number in range(4)]]


def test_places_are_made_for_the_prompt_that_needs_most() -> None:
    token_map = mapped(byte_level([END, "a", "aaaa"]), byte_level([END, "a"]), (3, 2))
    assert token_map.length([2, 1]) == 5
    assert token_map.places([], 10) == 20
    assert token_map.places([[1] * 8], 10) == 20
    assert token_map.places([[1], [2, 2, 2], [1, 2]], 10) == 12 + 4 * 7


def test_copies_of_a_draft_share_what_stands_before_it() -> None:
    model, token_map = (
        tiny_model("llama"),
        mapped(byte_level([END]), byte_level([END]), (1, 1)),
    )
    assert token_map_of(model) is None
    attach_token_map(model, token_map)
    assert token_map_of(copy.deepcopy(model)) is token_map
