from __future__ import annotations

import pytest

from distillspec.corpus.sources.draft_limit import fitting_prompts
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from tests.models.two_tokenizers import END, byte_level

A, AAAA = 1, 2  # the second is four tokens of the draft's


def prompt(key: str, tokens: Tokens, response: Tokens) -> Prompt:
    return Prompt(key, tokens, response, "", "plain")


PROMPTS = [
    prompt("short", (A, A), (A,)),
    prompt("long", (A, A), (AAAA,)),
    prompt("edge", (AAAA,), (A,)),
    prompt("longer", (AAAA, A), (A,)),
]


def token_map() -> CrossTokenizerMap:
    return CrossTokenizerMap(byte_level([END, "a", "aaaa"]), byte_level([END, "a"]), 3, 2, "here")


def whole(prompt: Prompt) -> list[Tokens]:
    assert prompt.response is not None
    return [prompt.tokens, (*prompt.tokens, *prompt.response)]


def test_prompts_of_a_text_that_is_too_long_in_the_drafts_tokens_are_left_out() -> None:
    result = fitting_prompts(PROMPTS, whole, token_map(), 5, "training")
    assert [fitting.key for fitting in result.prompts] == ["short", "edge"]
    (note,) = result.notes
    assert note.startswith("2 of 4 training texts are longer than the 5 tokens")


def test_where_all_fit_nothing_is_left_out_or_said() -> None:
    assert fitting_prompts(PROMPTS, whole, token_map(), 6, "training") == (PROMPTS, [])


def test_no_fitting_prompt_is_an_error_with_the_shortest_length() -> None:
    with pytest.raises(DistillSpecError, match="the shortest has 3"):
        fitting_prompts(PROMPTS, whole, token_map(), 2, "training")
