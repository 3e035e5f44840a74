"""Tokens back to text, as they are: no space is tidied away."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def decoded(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], *, skip_special_tokens: bool = False
) -> str:
    """The text of the tokens, whatever `clean_up_tokenization_spaces` the tokenizer has."""
    text = tokenizer.decode(
        list(tokens),
        skip_special_tokens=skip_special_tokens,
        clean_up_tokenization_spaces=False,
    )
    assert isinstance(text, str)
    return text
