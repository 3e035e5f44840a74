"""Prompts whose texts a draft can read: in the tokens of a tokenizer of its own they may be longer.

Texts are the target's tokens, and their limits count those. What is left out depends on the texts
alone, so that all processes and every resumption leave out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap


class Readable(NamedTuple):
    """notes: how many were left out, if any were."""

    prompts: list[Prompt]
    notes: list[str]


def readable(
    prompts: Sequence[Prompt],
    texts: Callable[[Prompt], Iterable[Tokens]],
    bridge: CrossTokenizerMap,
    places: int,
    name: str,
) -> Readable:
    """Those of which every text takes at most `places` tokens of the draft's, in their order.

    texts: of a prompt, all that are made of it. DistillSpecError if none is left.
    """
    longest = [max(map(bridge.length, texts(prompt)), default=0) for prompt in prompts]
    kept = [one for one, length in zip(prompts, longest, strict=True) if length <= places]
    if not kept:
        raise DistillSpecError(
            f"every {name} text is longer than the {places} tokens that the draft can read; the "
            f"shortest has {min(longest)} of its own",
            where="pair.tokenizers=cross-tokenizer, data.max_prompt_tokens, "
            "data.max_response_tokens",
            fix="lower these two, or take a draft with a longer context or a nearer tokenizer",
        )
    if len(kept) == len(prompts):
        return Readable(kept, [])
    return Readable(
        kept,
        [
            f"{len(prompts) - len(kept)} of {len(prompts)} {name} texts are longer than the "
            f"{places} tokens of its own that the draft can read: left out"
        ],
    )
