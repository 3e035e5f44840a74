from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distillspec.models.vocabulary.detokenize import detokenize


@pytest.mark.parametrize("tidies", [False, True])
def test_spaces_stay_as_they_are_even_if_the_tokenizer_cleans_up(tidies: bool) -> None:
    words = Tokenizer(models.WordLevel({"?": 0, "do": 1, "n't": 2, ".": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="?", clean_up_tokenization_spaces=tidies
    )
    assert detokenize(made, (1, 2, 3)) == "do n't ."
    assert detokenize(made, (1, 0, 3), skip_special_tokens=True) == "do ."
