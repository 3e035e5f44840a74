from __future__ import annotations

from distillspec.corpus.batches.batching import collate


def test_rows_are_padded_on_the_right_and_masks_say_what_is_what() -> None:
    batch = collate([([5, 6], [7]), ([8], [9, 10, 11])], pad_token=3)
    assert batch.tokens.tolist() == [[5, 6, 7, 3], [8, 9, 10, 11]]
    assert batch.is_token.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.is_response.tolist() == [[False, False, True, False], [False, True, True, True]]


def test_a_real_end_of_text_is_a_token_of_the_response_though_padding_is_the_same_token() -> None:
    end = 0
    batch = collate([([5, end], [7, end]), ([8], [9, 10, 11, 12])], pad_token=end)
    assert batch.tokens[0].tolist() == [5, end, 7, end, end]
    assert batch.is_token[0].tolist() == [True, True, True, True, False]
    assert batch.is_response[0].tolist() == [False, False, True, True, False]


def test_an_empty_response_has_no_response_token() -> None:
    batch = collate([([5, 6], [])], pad_token=0)
    assert batch.tokens.shape == (1, 2)
    assert not batch.is_response.any()


def test_prompts_can_be_learned_from_but_for_their_first_token() -> None:
    batch = collate([([5, 6], [7]), ([8], [9, 10, 11])], pad_token=3, on_prompts=True)
    assert batch.is_response.tolist() == [[False, True, True, False], [False, True, True, True]]
