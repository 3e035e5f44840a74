from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.tokenizing import Encoder
from tests.seq2seq import END as T5_END
from tests.seq2seq import START, t5_tokenizer

END = 0


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_response_that_ends_within_the_limit_carries_end_of_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert encoder.responses(["abc", ""], 5, end=END, literal=False) == [
        (*ids(tokenizer, "abc"), END),
        (END,),
    ]


def test_a_response_that_is_cut_carries_no_end_of_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = encoder.responses(["abcdef", "abcde"], 5, end=END, literal=False)
    assert found == [ids(tokenizer, "abcde")] * 2


def test_end_of_text_inside_a_response_ends_it(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = encoder.responses(["ab<|endoftext|>cd"], 9, end=END, literal=False)
    assert found == [(*ids(tokenizer, "ab"), END)]


def test_another_end_may_be_asked_for_and_both_end_a_response(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    (turn,) = ids(tokenizer, "|")
    found = encoder.responses(["ab", "a|b", "a<|endoftext|>b", "abcd"], 4, end=turn, literal=False)
    a, b = ids(tokenizer, "ab")
    assert found == [(a, b, turn), (a, turn), (a, END), ids(tokenizer, "abcd")]
    assert encoder.responses(["ab"], 4, end=None, literal=False) == [(a, b)]


def test_a_turn_ends_as_the_template_says_else_as_a_text_does(
    encoder: Encoder, turning: PreTrainedTokenizerFast
) -> None:
    assert (encoder.end, encoder.turn_end) == (END, END)
    assert (Encoder(turning).end, Encoder(turning).turn_end) == (END, len(turning) - 1)


def test_source_code_may_speak_of_special_tokens_without_containing_them(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = 'end = "<|endoftext|>"'
    (found,) = encoder.responses([text], 100, end=END, literal=True)
    assert END not in found[:-1]
    assert tokenizer.decode(found[:-1]) == text
    (tail,) = encoder.tails([text], 100, prefix=True, literal=True)
    assert END not in tail


def test_the_end_of_a_long_text_is_that_of_the_whole_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = [f"{i} " * 500 for i in range(40)]
    found = encoder.tails(texts, 50, prefix=True, literal=True)
    assert found == [ids(tokenizer, text)[-50:] for text in texts]


def test_texts_of_few_tokens_a_character_are_read_until_the_limit_is_reached() -> None:
    """Runs of 40 spaces are one token: 8 characters a token are not enough, and less is guessed."""
    words = Tokenizer(models.WordLevel({"?": 0, "s": 1, "a": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=words))
    dense, thin = "a " * 3000, ("a" + " " * 40) * 3000
    for text in encoder.tails([*[dense] * 20, thin], 100, prefix=True, literal=False):
        assert text == (2,) * 100
    for text in encoder.responses([thin, *[dense] * 20], 100, end=END, literal=False):
        assert text == (2,) * 100


def test_a_text_longer_than_the_limit_is_no_whole(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert encoder.wholes(["abc", "abcd", "a" * 999], 3, prefix=True, literal=False) == [
        ids(tokenizer, "abc"),
        None,
        None,
    ]


def test_beginning_of_text_stays_in_front_of_a_truncated_prompt(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", END)]
    )
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>"))
    assert encoder.prefix == (END,)
    tail = ids(tokenizer, "def")
    assert encoder.tails(["abcdef"], 4, prefix=True, literal=True) == [(END, *tail)]
    assert encoder.tails(["abcdef"], 3, prefix=False, literal=True) == [tail]
    assert encoder.wholes(["def"], 4, prefix=True, literal=False) == [(END, *tail)]
    assert encoder.wholes(["def"], 3, prefix=True, literal=False) == [None]
    assert encoder.length("def") == 4


def test_a_text_that_was_cut_off_gets_no_end_of_its_own(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = ["ab", "abcd", "a<|endoftext|>b"]
    cut = encoder.responses(texts, 4, end=END, literal=False, whole=False)
    assert cut == [ids(tokenizer, "ab"), ids(tokenizer, "abcd"), (*ids(tokenizer, "a"), END)]
    whole = encoder.responses(texts, 4, end=END, literal=False)
    assert whole == [(*ids(tokenizer, "ab"), END), ids(tokenizer, "abcd"), cut[2]]


def test_prompts_for_an_encoder_end_with_what_the_tokenizer_adds_and_the_start_token() -> None:
    tokenizer = t5_tokenizer()
    encoder = Encoder(tokenizer, START)
    assert (encoder.prefix, encoder.suffix) == ((), (T5_END, START))
    plain = ids(tokenizer, "abc def")
    assert encoder.wholes(["abc def"], 99, prefix=True, literal=False) == [(*plain, T5_END, START)]
    exact = len(plain) + 2
    assert encoder.wholes(["abc def"], exact - 1, prefix=True, literal=False) == [None]
    assert encoder.tails(["xyz abc def"], exact, prefix=True, literal=False) == [
        (*ids(tokenizer, "xyz abc def")[-len(plain) :], T5_END, START)
    ]
    assert encoder.length("abc def") == exact
    # What spells the start token would end the source there.
    (spelt,) = encoder.wholes(["abc<pad> def"], 99, prefix=True, literal=False)
    assert spelt is not None and spelt.index(START) == len(spelt) - 1
    found = encoder.responses(["abc"], 9, end=encoder.end, literal=False)
    assert found == [(*ids(tokenizer, "abc"), T5_END)]


def test_prompts_for_a_causal_model_have_nothing_behind_them() -> None:
    encoder = Encoder(t5_tokenizer())
    assert encoder.suffix == ()
