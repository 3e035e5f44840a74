"""The tokens that a trimmed head of the draft keeps, counted in the text of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import target_sampler, target_store
from distillspec.corpus.sources.frequent_tokens import FrequentTokens, covering, frequent_tokens
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.responses import row_seed
from distillspec.models.loading.hot_tokens import hot_tokens
from distillspec.recipe.written_files import HOT_TOKENS

_DRAWN = 32  # responses that are drawn to count tokens in, if the target has stored none


def kept_tokens(
    pair: ModelPair,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
    keep: int,
) -> FrequentTokens:
    """The tokens that the draft's folder names; else the most frequent of the training's text.

    A draft that was trained with a head of `keep` tokens goes on with them. Where tokens are
    counted, end-of-text and special tokens are always kept.

    Args:
        pair: Names the special tokens.
        training: Training prompts; their responses are counted if there are no others.
        target_responses: The target's responses by prompt key, if the recipe trains on them.
        keep: Number of kept tokens.
    """
    in_data = [prompt.response for prompt in training if prompt.response is not None]
    texts = in_data if target_responses is None else target_responses.values()
    named = named_tokens(pair, keep)
    if named is not None:
        return covering(texts, named)
    special = pair.eos_token_ids.union(pair.tokenizer.all_special_ids)
    return frequent_tokens(
        texts,
        keep,
        # Special tokens may lie beyond the shared vocabulary.
        always=frozenset(token for token in special if token < pair.vocab_size),
        vocab_size=pair.vocab_size,
    )


def named_tokens(pair: ModelPair, keep: int) -> Tokens | None:
    """The `keep` tokens in hot_token_ids.json of the draft's folder; None if it has other ones."""
    plan = pair.recipe.pair
    if not isinstance(plan.draft, str):
        return None
    return hot_tokens(plan.draft, plan.draft_revision, pair.vocab_size, keep)


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
        counted_in: The text that its tokens were counted in, or what names them, in words.
    """

    pair: ModelPair
    counted_in: str


def foreseen_head(pair: ModelPair, training: Sequence[Prompt]) -> ForeseenHead | None:
    """Predict the trimmed head from the text that is known before training.

    If training will count in responses of the target, and none is stored, some are drawn here. They
    are few, so the most similar text of the data is counted too. Nothing is stored.

    Returns:
        None if the recipe trims no head.
    """
    plan = pair.recipe.pair.draft_head
    if plan is None:
        return None
    named = named_tokens(pair, plan.keep)
    if named is not None:
        return ForeseenHead(pair.trimmed_to(named), f"an earlier training ({HOT_TOKENS})")
    in_data = {p.key: p.response for p in training if p.response is not None}
    if "target" not in pair.recipe.distill.stored:
        texts, counted_in = in_data, "the responses in the data, as training does"
    elif texts := target_store(pair, training).known():
        counted_in = f"{len(texts)} of the target's stored responses"
    else:
        drawn = _drawn(pair, training[:_DRAWN])
        texts = (in_data or {prompt.key: prompt.tokens for prompt in training}) | drawn
        counted_in = f"{len(drawn)} responses drawn from the target for this check"
        # All texts were replaced if every prompt got a response.
        if len(drawn) < len(texts):
            counted_in += f" and {'the responses in the data' if in_data else 'the prompts'}"
    tokens = kept_tokens(pair, training, texts, plan.keep).tokens
    return ForeseenHead(pair.trimmed_to(tokens), counted_in)


def _drawn(pair: ModelPair, prompts: Sequence[Prompt]) -> dict[str, Tokens]:
    """The target's responses to these prompts by prompt key: those that training will store."""
    seeds = [row_seed(pair.recipe.seed, prompt) for prompt in prompts]
    responses = target_sampler(pair)(list(prompts), seeds)
    return {p.key: tuple(drawn) for p, drawn in zip(prompts, responses, strict=True)}
