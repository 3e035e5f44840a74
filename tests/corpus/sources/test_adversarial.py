"""Prompts made from a seed: their shapes, their lengths, and no token that is not text."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.adversarial import OddPrompt, odd_prompts
from distillspec.errors import DistillSpecError
from distillspec.recipe.prompt_plan import AdversarialSource

END = 0


def made(
    tokenizer: PreTrainedTokenizerFast, most: int = 100, seed: int = 0, **values: Any
) -> list[OddPrompt]:
    plan = AdversarialSource(kind="adversarial", **{"prompts": 40, "tokens": 32, **values})
    return odd_prompts(plan, tokenizer, most=most, seed=seed, where="prompts.source")


def test_the_shapes_take_turns_each_at_its_length(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = made(tokenizer)
    assert [prompt.shape for prompt in prompts[:5]] == [
        "random",
        "repeated",
        "short",
        "long",
        "random",
    ]
    assert [len(prompt.tokens) for prompt in prompts[:4]] == [32, 32, 2, 100]
    assert (
        len({prompt.key for prompt in prompts}) == len({prompt.tokens for prompt in prompts}) == 40
    )


def test_a_repeated_prompt_is_a_loop_and_a_long_one_prose(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for prompt in made(tokenizer, shapes=("repeated",)):
        periods = [n for n in (1, 2, 3, 4) if prompt.tokens[n:] == prompt.tokens[:-n]]
        assert periods, "it repeats at most four tokens"
    for prompt in made(tokenizer, shapes=("long",), most=400):
        text = tokenizer.decode(prompt.tokens)
        assert len(prompt.tokens) == 400
        assert text.isprintable() or "\n" in text


def test_random_tokens_are_all_over_the_vocabulary_but_never_special(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    drawn = {
        t for prompt in made(tokenizer, shapes=("random",), prompts=200) for t in prompt.tokens
    }
    assert END not in drawn
    assert drawn == set(range(1, len(tokenizer)))


def test_the_seed_decides_all_and_more_prompts_begin_with_the_fewer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert made(tokenizer, prompts=8) == made(tokenizer)[:8]
    assert made(tokenizer, seed=1)[0] != made(tokenizer)[0]


def test_no_prompt_is_longer_than_the_limit(tokenizer: PreTrainedTokenizerFast) -> None:
    assert {len(prompt.tokens) for prompt in made(tokenizer, most=5)} == {2, 5}
    with pytest.raises(DistillSpecError, match="no room for a prompt") as caught:
        made(tokenizer, most=1)
    assert caught.value.where == "prompts.source"


def test_more_prose_than_there_is_is_the_users_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DistillSpecError, match="10000000 tokens"):
        made(tokenizer, most=10_000_000, shapes=("long",), prompts=1)
