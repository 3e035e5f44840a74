"""What is asked of the target before training, every process its part: responses, distributions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from distillspec.assembly import training as build
from distillspec.assembly.pair import ModelPair
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
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
    store = build.target_store(pair, training)
    if world.size > 1 or not store.complete:
        with writing_store(store.folder, world, console), console.status("") as status:
            fill(
                store,
                build.target_sampler(pair),
                rank=world.rank,
                world=world.size,
                progress=lambda done, total: status.update(f"target responses: {done} of {total}"),
            )
    return TargetResponses(store.responses(), store.folder, store.seconds)


def cached_target(
    pair: ModelPair, training: list[Prompt], responses: dict[str, Tokens] | None, world: World
) -> CachedTopKTarget | None:
    """The target's kept distributions, where the recipe asks for them; makes those that are
    missing, every rank its part, once their size has been told and found to fit the disk.

    Those for a draft with a trimmed head are of the tokens that it keeps.
    """
    signal = pair.recipe.distill.cached_logits
    if signal is None:
        return None
    pair = build.with_head(pair, training, responses)
    store = build.signal_store(pair, signal, training, responses)
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
                build.signal_scorer(pair, signal),
                rank=world.rank,
                world=world.size,
                progress=lambda done, total: status.update(
                    f"target distributions: shard {done} of {total}"
                ),
            )
    return CachedTopKTarget(store)
