"""The tokens that a trimmed head of the draft keeps, counted in the text of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import target_store
from distillspec.corpus.sources.frequent_tokens import FrequentTokens, frequent_tokens
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens


def kept_tokens(
    pair: ModelPair,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
    keep: int,
) -> FrequentTokens:
    """The most frequent tokens of the text that training reads.

    End-of-text and special tokens are always kept.

    Args:
        pair: Names the special tokens.
        training: Training prompts; their responses are counted if there are no others.
        target_responses: The target's responses by prompt key, if the recipe trains on them.
        keep: Number of kept tokens.
    """
    in_data = [prompt.response for prompt in training if prompt.response is not None]
    special = pair.eos_token_ids.union(pair.tokenizer.all_special_ids)
    return frequent_tokens(
        in_data if target_responses is None else target_responses.values(),
        keep,
        # Special tokens may lie beyond the shared vocabulary.
        always=frozenset(token for token in special if token < pair.vocab_size),
        vocab_size=pair.vocab_size,
    )


def with_head(
    pair: ModelPair, training: Sequence[Prompt], target_responses: dict[str, Tokens] | None
) -> ModelPair:
    """The pair with a trimmed head; the same pair if the recipe trims none."""
    plan = pair.recipe.pair.draft_head
    if plan is None or pair.kept is not None:
        return pair
    return pair.trimmed_to(kept_tokens(pair, training, target_responses, plan.keep).tokens)


class ForeseenHead(NamedTuple):
    """A pair with the trimmed head that training will probably choose.

    Attributes:
        pair: With that head.
        counted_in: The text that its tokens were counted in, in words.
    """

    pair: ModelPair
    counted_in: str


def foreseen_head(pair: ModelPair, training: Sequence[Prompt]) -> ForeseenHead | None:
    """Predict the trimmed head from the text that is known before training.

    Returns:
        None if the recipe trims no head.
    """
    plan, stored = pair.recipe.pair.draft_head, pair.recipe.distill.stored
    if plan is None:
        return None
    # The text that training will read. If it is unknown, the text most similar to it.
    texts = target_store(pair, training).known() if "target" in stored else {}
    counted_in = f"{len(texts)} of the target's stored responses"
    if not texts:
        texts = {p.key: p.response for p in training if p.response is not None}
        counted_in = "the responses in the data"
    if not texts:
        texts = {prompt.key: prompt.tokens for prompt in training}
        counted_in = "the prompts, since no response is known yet"
    tokens = kept_tokens(pair, training, texts, plan.keep).tokens
    return ForeseenHead(pair.trimmed_to(tokens), counted_in)
