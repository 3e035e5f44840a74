"""Which tokens a trimmed head of the draft keeps, counted before or during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import target_store
from distillspec.corpus.sources.frequent_tokens import Frequent, frequent_tokens
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens

if TYPE_CHECKING:
    pass


def kept_tokens(
    pair: ModelPair,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
    keep: int,
) -> Frequent:
    """What a trimmed head of the draft keeps: by the target's responses, or the data's own.

    End-of-text and special tokens are kept whatever their counts.
    """
    own = [prompt.response for prompt in training if prompt.response is not None]
    special = pair.eos_token_ids.union(pair.tokenizer.all_special_ids)
    return frequent_tokens(
        own if target_responses is None else target_responses.values(),
        keep,
        always=frozenset(token for token in special if token < pair.vocab_size),
        vocab_size=pair.vocab_size,
    )


def with_head(
    pair: ModelPair, training: Sequence[Prompt], target_responses: dict[str, Tokens] | None
) -> ModelPair:
    """The pair with the tokens that a trimmed head keeps, where the recipe trims it."""
    plan = pair.recipe.pair.draft_head
    if plan is None or pair.kept is not None:
        return pair
    return pair.trimmed_to(kept_tokens(pair, training, target_responses, plan.keep).tokens)


class ForeseenHead(NamedTuple):
    """A pair with the head that training will probably keep, and the text its tokens are from."""

    pair: ModelPair
    counted_in: str


def foreseen_head(pair: ModelPair, training: Sequence[Prompt]) -> ForeseenHead | None:
    """Before the target has been asked: by what is known of the text that training counts.

    None where the recipe trims no head.
    """
    plan, source = pair.recipe.pair.draft_head, pair.recipe.distill.source
    if plan is None:
        return None
    texts = target_store(pair, training).known() if "target" in source.stored else {}
    counted_in = f"{len(texts)} of the target's stored responses"
    if not texts:
        texts = {p.key: p.response for p in training if p.response is not None}
        counted_in = "the data's own responses"
    if not texts:
        texts = {prompt.key: prompt.tokens for prompt in training}
        counted_in = "the prompts, since no response is known yet"
    kept = kept_tokens(pair, training, texts, plan.keep).tokens
    return ForeseenHead(pair.trimmed_to(kept), counted_in)
