"""The tokenizer of a GGUF file. One word in the file names how it splits text before merging.

transformers knows some of these words. For all others it splits text as GPT-2 does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from distillspec.models.loading.gguf_header import GgufHeader

_PRE = "tokenizer.ggml.pre"
_MODELS = ("gpt2", "llama", "t5", "gemma4")  # those that transformers builds

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Cutting(NamedTuple):
    """How a byte-level tokenizer treats text before and during merging.

    Attributes:
        pattern: Each match is merged separately; None for GPT-2's pattern.
        single_digits: Each digit is a piece; applied before the pattern.
        composes: Unicode is normalised to its composed form (NFC) first.
        takes_whole: A match that is a token stays one token, even if the merges would not build it.
        begins: A text begins with the BOS token if the file does not state it.
    """

    pattern: str | None = None
    single_digits: bool = False
    composes: bool = False
    takes_whole: bool = False
    begins: bool = False


_GPT2 = Cutting()
_DIGITS = Cutting(single_digits=True)
_LLAMA3_CUTTING = Cutting(_LLAMA3, takes_whole=True, begins=True)

# The words that llama.cpp writes (src/llama-vocab.cpp), as the models' own tokenizer.json has them.
CUTTINGS = {
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "llama-bpe": _LLAMA3_CUTTING,
    "llama3": _LLAMA3_CUTTING,
    "llama-v3": _LLAMA3_CUTTING,
    "lfm2": _LLAMA3_CUTTING,
    "qwen2": Cutting(_QWEN2, composes=True),
    "qwen35": Cutting(_QWEN35, composes=True),
    "tekken": Cutting(_TEKKEN, takes_whole=True, begins=True),
}


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
