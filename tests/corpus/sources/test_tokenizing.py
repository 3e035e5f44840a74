from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.tokenizing import Encoder, PromptText
from tests.seq2seq import END as T5_END
from tests.seq2seq import START, t5_tokenizer

END = 0


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def alone(*texts: str) -> list[tuple[None, str]]:
    """Responses of which nobody knows what comes before."""
    return [(None, text) for text in texts]


def test_a_response_that_ends_within_the_limit_carries_end_of_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert encoder.responses(alone("abc", ""), 5, end=END, literal=False) == [
        (*ids(tokenizer, "abc"), END),
        (END,),
    ]


def test_a_response_that_is_cut_carries_no_end_of_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    result = encoder.responses(alone("abcdef", "abcde"), 5, end=END, literal=False)
    assert result == [ids(tokenizer, "abcde")] * 2


def test_end_of_text_inside_a_response_ends_it(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    result = encoder.responses(alone("ab<|endoftext|>cd"), 9, end=END, literal=False)
    assert result == [(*ids(tokenizer, "ab"), END)]


def test_another_end_may_be_asked_for_and_both_end_a_response(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    (turn,) = ids(tokenizer, "|")
    result = encoder.responses(
        alone("ab", "a|b", "a<|endoftext|>b", "abcd"), 4, end=turn, literal=False
    )
    a, b = ids(tokenizer, "ab")
    assert result == [(a, b, turn), (a, turn), (a, END), ids(tokenizer, "abcd")]
    assert encoder.responses(alone("ab"), 4, end=None, literal=False) == [(a, b)]


def spm_like(scheme: str) -> PreTrainedTokenizerFast:
    """Pieces of letters and `▁` for a space, which some tokenizers put before every text too."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789!", "\n"]
    merges = [("▁", "t"), ("m", "a"), ("t", "s"), ("ma", "ts"), ("a", "n"), ("an", "d")]
    pieces = ["<unk>", "<s>", "</s>", *letters, *(a + b for a, b in merges)]
    backend = Tokenizer(
        models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, unk_token="<unk>")
    )
    if scheme == "normalizer":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


SEAMS = [
    ("the cat on 7 ma", "ts and"),  # a piece goes over the seam
    ("the cat on 7 ma", "d dog"),
    ("the cat on", " ma"),
    ("the cat on ", "ma"),
    ("the cat!\n", "mats"),
    ("the cat!", "\n\nmats"),
    ("the cat " * 200 + "ma", "ts and"),  # longer than what is read again
]


@pytest.mark.parametrize("scheme", ["always", "first", "normalizer", "never"])
@pytest.mark.parametrize(("prompt", "response"), SEAMS)
def test_prompt_and_response_together_decode_to_the_text(
    scheme: str, prompt: str, response: str
) -> None:
    made = spm_like(scheme)
    encoder = Encoder(made)
    (read,) = encoder.wholes([prompt], 9999, prefix=True, literal=False)
    assert read == tuple(made(prompt, add_special_tokens=False)["input_ids"])
    row = (PromptText(prompt, read), response)
    (result,) = encoder.responses([row], 99, end=encoder.end, literal=False)
    assert made.decode([*read, *result[:-1]]) == prompt + response
    whole = tuple(made(prompt + response, add_special_tokens=False)["input_ids"])
    if whole[: len(read)] == read:
        assert result[:-1] == whole[len(read) :]
    assert result[-1] == encoder.end
    # What a server answered is read in the same way.
    assert encoder.responses([row], 99, end=encoder.end, literal=True) == [result]


@pytest.mark.parametrize("adds_space", [False, True])
@pytest.mark.parametrize(("prompt", "response"), SEAMS)
def test_pieces_of_bytes_decode_to_the_text_across_the_seam(
    adds_space: bool, prompt: str, response: str
) -> None:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_space)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the cat on 7 mats and mats!\n\nmats ma"] * 9, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    encoder = Encoder(made)
    read = tuple(made(prompt, add_special_tokens=False)["input_ids"])
    (result,) = encoder.responses([(PromptText(prompt, read), response)], 99, end=0, literal=False)
    assert made.decode([*read, *result[:-1]]).removeprefix(" ") == prompt + response


def test_a_chats_answer_has_the_tokens_of_the_rendered_conversation() -> None:
    made = spm_like("always")
    encoder = Encoder(made)
    prompt, response = "<s>hi!\n", "the mats</s>\n"
    (read,) = encoder.wholes([prompt], 99, prefix=False, literal=False)
    assert read is not None
    row = (PromptText(prompt, read), response)
    whole = tuple(made(prompt + response, add_special_tokens=False)["input_ids"])
    (result,) = encoder.responses([row], 99, end=None, literal=False)
    assert (*read, *result) == whole[: whole.index(encoder.end) + 1]
    # An answer that spells a special token is plain text behind a prompt that holds some.
    (spelt,) = encoder.responses([(PromptText(prompt, read), "a</s>b")], 99, end=None, literal=True)
    assert encoder.end not in spelt


def test_a_prompt_that_lost_its_beginning_keeps_its_last_tokens() -> None:
    made = spm_like("first")
    encoder = Encoder(made)
    text = "the cat on 7 " * 90 + "ma"
    (read,) = encoder.tails([text], 20, prefix=True, literal=True)
    (result,) = encoder.responses([(PromptText(text, read, True), "ts")], 9, end=None, literal=True)
    assert made.decode([*read, *result]).endswith("on 7 mats")


def test_a_turn_ends_as_in_the_template_else_as_a_text_does(
    encoder: Encoder, turning: PreTrainedTokenizerFast
) -> None:
    assert (encoder.end, encoder.turn_end) == (END, END)
    assert (Encoder(turning).end, Encoder(turning).turn_end) == (END, len(turning) - 1)


def test_source_code_may_speak_of_special_tokens_without_containing_them(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = 'end = "<|endoftext|>"'
    (result,) = encoder.responses(alone(text), 100, end=END, literal=True)
    assert END not in result[:-1]
    assert tokenizer.decode(result[:-1]) == text
    (tail,) = encoder.tails([text], 100, prefix=True, literal=True)
    assert END not in tail


def test_the_end_of_a_long_text_is_that_of_the_entire_text(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = [f"{i} " * 500 for i in range(40)]
    result = encoder.tails(texts, 50, prefix=True, literal=True)
    assert result == [ids(tokenizer, text)[-50:] for text in texts]


def test_texts_of_few_tokens_a_character_are_read_until_the_limit_is_reached() -> None:
    """Runs of 40 spaces are one token: 8 characters a token are not enough, and less is guessed."""
    words = Tokenizer(models.WordLevel({"?": 0, "s": 1, "a": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=words))
    dense, thin = "a " * 3000, ("a" + " " * 40) * 3000
    for text in encoder.tails([*[dense] * 20, thin], 100, prefix=True, literal=False):
        assert text == (2,) * 100
    for text in encoder.responses(alone(thin, *[dense] * 20), 100, end=END, literal=False):
        assert text == (2,) * 100


def test_a_character_that_the_tokenizer_lacks_does_not_move_the_seam() -> None:
    """An unknown token decodes to no text, so that the text behind the prompt is never met."""
    pieces = ["<unk>", "\u2581", "s", "\u2581s", "\u2581the", "\u2581thes", "c"]
    scores = [0.0, -2.0, -3.0, -3.0, -2.0, -2.5, -3.0]
    model = models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=0)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    words = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert ids(words, "thes") == (5,)  # a piece goes over the seam
    prompt = PromptText("the", (4,))
    result = Encoder(words).responses([(prompt, "scж"), (prompt, "жs")], 9, end=None, literal=False)
    assert result == [(2, 6, 0), (0, 2)]


def test_a_text_longer_than_the_limit_is_none(
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


def test_a_text_that_was_cut_off_gets_no_end(
    encoder: Encoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = ["ab", "abcd", "a<|endoftext|>b"]
    cut = encoder.responses(alone(*texts), 4, end=END, literal=False, whole=False)
    assert cut == [ids(tokenizer, "ab"), ids(tokenizer, "abcd"), (*ids(tokenizer, "a"), END)]
    whole = encoder.responses(alone(*texts), 4, end=END, literal=False)
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
    result = encoder.responses(alone("abc"), 9, end=encoder.end, literal=False)
    assert result == [(*ids(tokenizer, "abc"), T5_END)]


def test_prompts_for_a_causal_model_have_nothing_behind_them() -> None:
    encoder = Encoder(t5_tokenizer())
    assert encoder.suffix == ()
