"""The tokenizer of a GGUF file. One word in the file names how it splits text before merging.

transformers knows some of these words. For all others it splits text as GPT-2 does.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from distillspec.models.loading.gguf_header import GgufHeader
from distillspec.models.vocabulary.cutting import CUTTINGS, Cutting

_PRE = "tokenizer.ggml.pre"
_MODELS = ("gpt2", "llama", "t5", "gemma4")  # those that transformers builds


def check_tokenizer(header: GgufHeader) -> None:
    """Raise DistillSpecError for a tokenizer whose way of splitting text is unknown."""
    word, model = header.settings.get(_PRE), header.settings.get("tokenizer.ggml.model")
    if model not in _MODELS:
        header.refuse(
            f"the GGUF file's tokenizer has the type '{model}', which cannot be converted"
        )
    if model == "gpt2" and word not in CUTTINGS:
        header.refuse(
            f"the GGUF file's tokenizer splits text as '{word}', which cannot be converted"
            if word is not None
            else "the GGUF file does not state how its tokenizer splits text (tokenizer.ggml.pre)"
        )
    if model == "llama" and word not in (None, "default"):
        header.refuse(
            f"the GGUF file's tokenizer is a SentencePiece model that splits text as '{word}', "
            "which cannot be converted"
        )


def finish_tokenizer(header: GgufHeader, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add to a tokenizer what the file states and transformers left out.

    Raises:
        DistillSpecError: The tokenizer does not do what the file states.
    """
    model = header.settings.get("tokenizer.ggml.model")
    if model == "llama":
        stated = bool(header.settings.get("tokenizer.ggml.add_space_prefix", True))
        if tokenizer.tokenize("a")[0].startswith("▁") != stated:
            header.refuse(
                f"the GGUF file's tokenizer {'puts a' if stated else 'puts no'} space before each "
                "text (add_space_prefix), which cannot be converted"
            )
    if model == "gpt2":
        _cut(tokenizer, CUTTINGS[header.settings[_PRE]], header)


def _cut(tokenizer: Any, cutting: Cutting, header: GgufHeader) -> None:
    # 1. Split the text. GPT-2's pattern is built into ByteLevel.
    backend = tokenizer.backend_tokenizer
    parts: list[Any] = []
    if cutting.single_digits:
        parts.append(pre_tokenizers.Digits(individual_digits=True))
    if cutting.pattern is not None:
        parts.append(pre_tokenizers.Split(Regex(cutting.pattern), behavior="isolated"))
    is_gpt2 = cutting.pattern is None
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=is_gpt2))
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    # 2. The normalizer runs before the split, merging and the decoder after it.
    backend.normalizer = normalizers.NFC() if cutting.composes else None
    backend.decoder = decoders.ByteLevel()
    backend.model.ignore_merges = cutting.takes_whole
    # 3. A file that says nothing about the BOS token follows its family.
    is_silent = "tokenizer.ggml.add_bos_token" not in header.settings
    if cutting.begins and is_silent and tokenizer.bos_token is not None:
        tokenizer.add_bos_token = True
