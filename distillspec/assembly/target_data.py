"""What the target computes before training: responses and cached top-k logits.

Each process computes its part.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from distillspec.assembly.pair import ModelPair
from distillspec.corpus.batches.batching import collate
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.responses import SampledBy, Sampler, StoredResponses, fill
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.corpus.stores.top_k import Scorer, TopKStore, TopKText, fill_top_k, size_in_words
from distillspec.divergence.top_tokens import TopTokens, top_tokens
from distillspec.models.loading.digest import model_digest
from distillspec.models.sampling.generate import generate
from distillspec.models.vocabulary.tokenizer_pair import vocabulary_digest
from distillspec.recipe.target_logits import CachedTargetConfig
from distillspec.recipe.text_source import Origin
from distillspec.runtime.processes import writing_store
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World
from distillspec.speculation.random_source import RowSource
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.loss_positions import predicts_response

_PAGE = 160  # columns of a log or a pipe, which have no width
console = Terminal(width=None if sys.stdout.isatty() else _PAGE)


class TargetResponses(NamedTuple):
    """The target's stored responses.

    Attributes:
        by_key: Response tokens by the key of their prompt.
        folder: Of the store.
        seconds: What sampling them took, over all runs and processes.
    """

    by_key: dict[str, Tokens]
    folder: Path
    seconds: float


def target_responses(pair: ModelPair, training: list[Prompt], world: World) -> TargetResponses:
    """Read the target's stored responses; each rank samples its part of what is missing."""
    store = target_store(pair, training)
    # Several processes enter together, because `writing_store` has barriers.
    if world.size > 1 or not store.complete:
        with writing_store(store.folder, world, console), console.status("") as status:
            fill(
                store,
                target_sampler(pair),
                rank=world.rank,
                world=world.size,
                progress=lambda done, total: status.update(
                    "target responses", done=done, total=total
                ),
            )
    return TargetResponses(store.responses(), store.folder, store.seconds)


def cached_target(
    pair: ModelPair, training: list[Prompt], responses: dict[str, Tokens] | None, world: World
) -> CachedTopKTarget | None:
    """Read the target's cached top-k logits; each rank computes its part of what is missing.

    Args:
        pair: With the tokens of a trimmed head, if the recipe trims it: the logits are of these.
        training: Training prompts.
        responses: The target's responses by prompt key, None if the recipe trains on other text.
        world: The processes of this start.

    Returns:
        None if the recipe does not cache logits.

    Raises:
        DistillSpecError: The disk is too full.
    """
    signal = pair.recipe.distill.cached_logits
    if signal is None:
        return None
    store = top_k_store(pair, signal, training, responses)
    if not world.rank:
        missing = len(store.missing())
        console.print(
            f"target distributions of {store.tokens:,} tokens in {store.texts:,} texts: k "
            f"{signal.k}, {store.bytes_per_token} bytes per token, "
            f"{size_in_words(store.size_bytes)} in "
            f"{store.folder}{f'; to make: {missing} of {store.shards} shards' if missing else ''}",
            highlight=False,
            soft_wrap=True,
        )
        if pair.recipe.distill.cached_logits_caveat is not None:
            console.print(pair.recipe.distill.cached_logits_caveat, highlight=False, soft_wrap=True)
    if world.size > 1 or store.missing():
        with writing_store(store.folder, world, console), console.status("") as status:
            # Before the long computation, not when the disk is full.
            store.check_space()
            fill_top_k(
                store,
                top_k_scorer(pair, signal),
                rank=world.rank,
                world=world.size,
                progress=lambda done, total: status.update(
                    "target distributions, shards", done=done, total=total
                ),
            )
    return CachedTopKTarget(store)


def target_store(pair: ModelPair, training: Sequence[Prompt]) -> StoredResponses:
    """The store of the target's responses to `training`.

    The folder is named by all settings that determine the responses. The chat template is not one
    of them, because a row holds the tokens of its prompt.
    """
    recipe = pair.recipe
    return StoredResponses(
        _store_folder(pair, recipe.data.store),
        training,
        SampledBy(
            seed=recipe.seed,
            temperature=recipe.distill.temperature,
            model=model_digest(pair.target.model),
            settings={
                "max_response_tokens": recipe.data.max_response_tokens,
                "dtype": str(pair.target.model.dtype).removeprefix("torch."),
                "tokenizer": vocabulary_digest(pair.tokenizer),
                "vocabulary": pair.vocab_size,
                "end_tokens": ",".join(map(str, sorted(pair.eos_token_ids))),
            },
        ),
    )


def _store_folder(pair: ModelPair, root: str) -> StoreFolder:
    recipe = pair.recipe
    return StoreFolder(Path(root), recipe.pair.target_name, former=recipe.name)


def target_sampler(pair: ModelPair) -> Sampler:
    """Draws the target's responses to prompts, each from a separate seed."""

    def sample(batch: list[Prompt], seeds: list[int]) -> list[list[int]]:
        max_new_tokens = pair.recipe.data.max_response_tokens
        responses = generate(
            pair.target.model,
            [torch.tensor(prompt.tokens) for prompt in batch],
            max_new_tokens=max_new_tokens,
            policy=SamplingPolicy(temperature=pair.recipe.distill.temperature),
            random_source=RowSource.seeded(seeds, max_new_tokens, pair.device),
            eos_token_ids=pair.eos_token_ids,
            pad_token=pair.pad_token,
            vocab_size=pair.vocab_size,
        )
        return [response.tolist() for response in responses]

    return sample


def top_k_store(
    pair: ModelPair,
    signal: CachedTargetConfig,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
) -> TopKStore:
    """The store of the target's distributions over all training texts.

    If the draft scores a part of the vocabulary, the distributions are conditional on that part,
    and a token id is its index in that part. Training compares the draft with nothing else.
    """
    plan, scored = pair.recipe.distill, pair.vocabulary.scored
    cached = [phase.source.stored for phase in plan.phases if phase.cached_logits is not None]
    origins = {origin for stored in cached for origin in stored}
    texts = [
        # `first` is the first predicted token: the row's second, or the response's first.
        TopKText((*prompt.tokens, *response), 1 if plan.on_prompts else len(prompt.tokens))
        for prompt in training
        for response in known_responses(prompt, origins, target_responses)
    ]
    return TopKStore(
        _store_folder(pair, signal.store),
        texts,
        signal,
        vocab_size=pair.vocab_size if scored is None else len(scored),
        temperature=plan.temperature,
        model=model_digest(pair.target.model),
        tokenizer=vocabulary_digest(pair.tokenizer),
        settings={
            "target_dtype": str(pair.target.model.dtype).removeprefix("torch."),
            "on_prompts": plan.on_prompts,
            **({} if scored is None else {"scored_tokens": _digest_of(scored)}),
        },
    )


def known_responses(
    prompt: Prompt, stored: Container[Origin], target_responses: dict[str, Tokens] | None
) -> list[Tokens]:
    """The responses to a prompt that are known before training, of the origins in `stored`."""
    responses = []
    if "fixed" in stored:
        assert prompt.response is not None, "the prompts have been checked"
        responses.append(prompt.response)
    if "target" in stored:
        assert target_responses is not None
        responses.append(target_responses[prompt.key])
    return responses


def _digest_of(tokens: Tokens) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def top_k_scorer(pair: ModelPair, signal: CachedTargetConfig) -> Scorer:
    """Scores texts with the target: the most probable tokens of each position.

    Only tokens that the draft scores are taken.
    """
    plan, target = pair.recipe.distill, pair.target
    scored = (
        None
        if pair.vocabulary.scored is None
        else torch.tensor(pair.vocabulary.scored, device=pair.device)
    )
    size = plan.micro_batch_size or plan.batch_size

    def score(texts: list[TopKText]) -> list[TopTokens]:
        distributions: list[TopTokens] = []
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            # Split before the first predicted token, so that the response mask covers all of them.
            pairs = [(text.tokens[: text.first], text.tokens[text.first :]) for text in part]
            batch = collate(pairs, pair.pad_token).to(pair.device)
            predicts = predicts_response(batch)
            # Without a separate head, all logits of the part exist at once.
            head = target.head
            states = target.logits if head is None else target.hidden
            rows = states(batch.tokens, batch.is_token)[predicts]
            if scored is not None and head is None:
                rows = rows[:, scored]
            elif scored is not None and head is not None:
                head = head.only(scored)
            most_probable = top_tokens(
                rows,
                head,
                k=signal.k,
                temperature=plan.temperature,
                chunk_tokens=plan.chunk_tokens,
            )
            check_finite("the target", most_probable.log_probability[:, 0])
            distributions += most_probable.split([text.predicted for text in part])
        return distributions

    return score
