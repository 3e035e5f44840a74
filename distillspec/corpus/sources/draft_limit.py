"""Leaves out prompts whose texts exceed the context of a draft with another tokenizer.

The limits in a recipe count the target's tokens; the draft's tokenizer may need more. The choice
depends on the texts alone, so that all processes and every resumed run leave out the same prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap


class FittingPrompts(NamedTuple):
    """The prompts that the draft can read, and a note where some were left out."""

    prompts: list[Prompt]
    notes: list[str]


def fitting_prompts(
    prompts: Sequence[Prompt],
    texts: Callable[[Prompt], Iterable[Tokens]],
    token_map: CrossTokenizerMap,
    places: int,
    name: str,
) -> FittingPrompts:
    """The prompts whose texts all fit into the draft's context, in their order.

    Args:
        prompts: The prompts to choose from.
        texts: Returns all texts that are made of a prompt.
        token_map: Counts the draft's tokens of a text.
        places: Length of the draft's context, in the draft's tokens.
        name: What the texts are for, in messages.

    Raises:
        DistillSpecError: No prompt is left.
    """
    longest = [max(map(token_map.length, texts(prompt)), default=0) for prompt in prompts]
    fitting = [p for p, length in zip(prompts, longest, strict=True) if length <= places]
    if not fitting:
        raise DistillSpecError(
            f"every {name} text is longer than the {places} tokens that the draft can read; the "
            f"shortest has {min(longest)} of the draft's tokens",
            where="pair.tokenizers=cross-tokenizer, data.max_prompt_tokens, "
            "data.max_response_tokens",
            fix="lower data.max_prompt_tokens or data.max_response_tokens, or take a draft with a "
            "longer context or a more similar tokenizer",
        )
    if len(fitting) == len(prompts):
        return FittingPrompts(fitting, [])
    return FittingPrompts(
        fitting,
        [
            f"{len(prompts) - len(fitting)} of {len(prompts)} {name} texts are longer than the "
            f"{places} tokens that the draft can read: left out"
        ],
    )
