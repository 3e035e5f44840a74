from __future__ import annotations

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.speculation.limits import check_room, prefill, up_to_end
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import DoubleReader


def runner(capacity: int = 8) -> BigramRunner:
    return BigramRunner(torch.zeros(3, 3), capacity=capacity)


def test_a_text_that_just_fits_has_room_and_one_token_more_has_not() -> None:
    """The last token is emitted, never fed."""
    check_room(torch.tensor([0, 1, 2]), 6, 8)
    with pytest.raises(
        DistillSpecError, match="needs room for 9 tokens; a model or its cache has 8"
    ):
        prefill(torch.tensor([0, 1, 2]), 7, runner(99), runner())


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(DistillSpecError, match="no tokens"):
        check_room(torch.tensor([], dtype=torch.long), 1, 8)


def test_all_but_the_last_token_of_the_prompt_are_fed() -> None:
    text_runner = runner()
    text_runner.feed(torch.tensor([[2, 2]]))
    prefill(torch.tensor([0, 1, 2]), 1, text_runner)
    assert text_runner.tokens.tolist() == [[0, 1]]
    prefill(torch.tensor([0]), 1, text_runner)
    assert text_runner.length == 0


def test_a_draft_that_reads_pieces_and_has_no_room_for_them_stays_empty() -> None:
    target, draft = runner(99), DoubleReader(torch.zeros(3, 3), capacity=8)
    draft.feed(torch.tensor([[2, 2, 2]]))  # of another text
    prefill(torch.tensor([0, 1, 2, 0, 1]), 50, target, draft)
    assert (target.length, draft.length) == (4, 4)
    prefill(torch.tensor([0, 1, 2, 0, 1, 2]), 50, target, draft)
    assert (target.length, draft.length) == (5, 0)
    with pytest.raises(DistillSpecError, match="has 99"):
        prefill(torch.tensor([0, 1, 2]), 98, target, draft)


def test_a_text_goes_up_to_its_first_end_token() -> None:
    assert up_to_end([3, 1, 2, 1], frozenset({1, 2})) == ([3, 1], True)
    assert up_to_end([3, 4], frozenset({1, 2})) == ([3, 4], False)
    assert up_to_end([3, 1], frozenset()) == ([3, 1], False)
