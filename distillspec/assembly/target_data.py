"""What is asked of the target before training, every process its part: responses, distributions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from distillspec.assembly.pair import ModelPair
from distillspec.corpus.batches.batching import collate
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.responses import SampledBy, Sampler, StoredResponses
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.corpus.stores.top_k import Scorer, TopKStore, TopKText
from distillspec.divergence.top_tokens import TopTokens, top_tokens
from distillspec.models.loading.digest import model_digest
from distillspec.models.sampling.generate import generate
from distillspec.models.vocabulary.tokenizer_pair import vocabulary_digest
from distillspec.recipe.distill import (
    CachedTargetConfig,
    SourceShares,
)
from distillspec.speculation.random_source import RowSource
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.training.loss_positions import predicts_response

if TYPE_CHECKING:
    pass
import sys

from distillspec.corpus.stores.responses import fill
from distillspec.corpus.stores.top_k import fill_signals, in_words
from distillspec.runtime.processes import writing_store
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World
from distillspec.training.cached_target import CachedTopKTarget

_PAGE = 160  # columns of a log or a pipe, which have no width of their own
console = Terminal(width=None if sys.stdout.isatty() else _PAGE)


class TargetResponses(NamedTuple):
    """The target's stored responses.

    Attributes:
        by_key: Response tokens by the key of their prompt.
        folder: Of the store.
        seconds: What sampling them took, in whichever run; over all processes.
    """

    by_key: dict[str, Tokens]
    folder: Path
    seconds: float


def target_responses(pair: ModelPair, training: list[Prompt], world: World) -> TargetResponses:
    """The target's stored responses, sampling those that are missing, every rank its part."""
    store = target_store(pair, training)
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
    """The target's cached top-k logits, if the recipe asks for them.

    Each rank computes its part of those that are missing, after their size has been printed and
    the disk has been found large enough. With a trimmed head they are of the kept tokens, so the
    pair must know these.
    """
    signal = pair.recipe.distill.cached_logits
    if signal is None:
        return None
    store = signal_store(pair, signal, training, responses)
    if not world.rank:
        missing = len(store.missing())
        console.print(
            f"target distributions of {store.tokens:,} tokens in {store.texts:,} texts: k "
            f"{signal.k}, {store.bytes_per_token} bytes per token, {in_words(store.size_bytes)} in "
            f"{store.folder}{f'; to make: {missing} of {store.shards} shards' if missing else ''}",
            highlight=False,
            soft_wrap=True,
        )
        if pair.recipe.distill.cached_logits_caveat is not None:
            console.print(pair.recipe.distill.cached_logits_caveat, highlight=False, soft_wrap=True)
    if world.size > 1 or store.missing():
        with writing_store(store.folder, world, console), console.status("") as status:
            store.check_space()
            fill_signals(
                store,
                signal_scorer(pair, signal),
                rank=world.rank,
                world=world.size,
                progress=lambda done, total: status.update(
                    "target distributions, shards", done=done, total=total
                ),
            )
    return CachedTopKTarget(store)


def target_store(pair: ModelPair, training: Sequence[Prompt]) -> StoredResponses:
    """The target's responses to `training`, in a folder that all that determines them names.

    The chat template is no part of that: a row knows its prompt's tokens.
    """
    recipe = pair.recipe
    return StoredResponses(
        _place(pair, recipe.data.store),
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


def _place(pair: ModelPair, root: str) -> StoreFolder:
    recipe = pair.recipe
    return StoreFolder(Path(root), recipe.pair.target_name, former=recipe.name)


def target_sampler(pair: ModelPair) -> Sampler:
    """Draws the target's responses to prompts, each from a seed of its own."""

    def sample(batch: list[Prompt], seeds: list[int]) -> list[list[int]]:
        most = pair.recipe.data.max_response_tokens
        responses = generate(
            pair.target.model,
            [torch.tensor(prompt.tokens) for prompt in batch],
            max_new_tokens=most,
            policy=SamplingPolicy(temperature=pair.recipe.distill.temperature),
            chance=RowSource.seeded(seeds, most, pair.device),
            eos_token_ids=pair.eos_token_ids,
            pad_token=pair.pad_token,
            vocab_size=pair.vocab_size,
        )
        return [response.tolist() for response in responses]

    return sample


def signal_store(
    pair: ModelPair,
    signal: CachedTargetConfig,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
) -> TopKStore:
    """Where the target's distributions over all texts of the training are kept.

    Where the draft scores a part of the vocabulary, they are the target's distributions given that
    part, and a token is known by its place in it: training compares the draft with nothing else.
    """
    plan, scored = pair.recipe.distill, pair.vocabulary.scored
    texts = [
        TopKText((*prompt.tokens, *response), 1 if plan.on_prompts else len(prompt.tokens))
        for prompt in training
        for response in known_responses(prompt, plan.source, target_responses)
    ]
    return TopKStore(
        _place(pair, signal.store),
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
    prompt: Prompt, source: SourceShares, target_responses: dict[str, Tokens] | None
) -> list[Tokens]:
    """Those that training may show with the prompt."""
    found = []
    if source.fixed:
        assert prompt.response is not None, "the prompts have been checked"
        found.append(prompt.response)
    if source.target:
        assert target_responses is not None
        found.append(target_responses[prompt.key])
    return found


def _digest_of(tokens: Tokens) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def signal_scorer(pair: ModelPair, signal: CachedTargetConfig) -> Scorer:
    """Forwards texts through the target and keeps the likeliest tokens of each position, among
    those that the draft scores.
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
            pairs = [(text.tokens[: text.first], text.tokens[text.first :]) for text in part]
            batch = collate(pairs, pair.pad_token).to(pair.device)
            predicts = predicts_response(batch)
            head = target.head
            states = target.logits if head is None else target.hidden
            rows = states(batch.tokens, batch.is_token)[predicts]
            if scored is not None and head is None:
                rows = rows[:, scored]
            elif scored is not None and head is not None:
                head = head.only(scored)
            found = top_tokens(
                rows,
                head,
                k=signal.k,
                temperature=plan.temperature,
                chunk_tokens=plan.chunk_tokens,
            )
            check_finite("the target", found.log_probability[:, 0])
            distributions += found.split([text.predicted for text in part])
        return distributions

    return score
