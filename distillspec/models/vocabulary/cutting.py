"""How byte-level tokenizers split text before they merge tokens, by the names in llama.cpp."""

from __future__ import annotations

from typing import NamedTuple

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


GPT2 = Cutting()
_DIGITS = Cutting(single_digits=True)
_LLAMA3_CUTTING = Cutting(_LLAMA3, takes_whole=True, begins=True)

# The words that llama.cpp writes (src/llama-vocab.cpp), as the models' own tokenizer.json has them.
CUTTINGS = {
    "gpt-2": GPT2,
    "phi-2": GPT2,
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
