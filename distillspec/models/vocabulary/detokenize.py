"""Tokens back to text, without clean-up of spaces."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def detokenize(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], *, skip_special_tokens: bool = False
) -> str:
    """The text of the tokens, regardless of the tokenizer's `clean_up_tokenization_spaces`."""
    text = tokenizer.decode(
        list(tokens),
        skip_special_tokens=skip_special_tokens,
        clean_up_tokenization_spaces=False,
    )
    assert isinstance(text, str)
    return text
