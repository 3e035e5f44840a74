from __future__ import annotations

from transformers.integrations.gguf import gguf_tokenizer_mapping
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from distillspec.models.vocabulary.cutting import CUTTINGS


def test_the_patterns_are_those_of_transformers_where_it_has_them() -> None:
    splits = gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS
    for word, cutting in CUTTINGS.items():
        if cutting.pattern is not None:
            assert cutting.pattern == splits[word], word
        else:
            assert word not in splits
    assert CUTTINGS["qwen2"].pattern == PRETOKENIZE_REGEX
