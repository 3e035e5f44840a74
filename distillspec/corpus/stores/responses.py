"""Responses that the target has sampled, stored row by row and shared by recipes.

A store belongs to one target and one way of sampling (`SampledBy`); a digest of these names its
folder. A row is a prompt's key and tokens with the response. Recipes with the same target and
settings share rows, even if their names and their other prompts differ.

Each row is sampled with a separate stream of random numbers, seeded by the recipe's seed and the
row. Rows are sampled in batches that depend on the requested prompts alone, and a batch is on disk
before the next one begins. A killed run loses the batch in flight; the next run samples the same
responses as an uninterrupted run, or a run of several processes.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.store_folder import (
    Setting,
    StoreFolder,
    begin_store,
    note_seconds,
    seconds_of,
)
from distillspec.errors import DistillSpecError
from distillspec.runtime.journal import appending
from distillspec.runtime.plain_files import BoundedText, read_lines
from distillspec.runtime.seeds import derive_seed

Sampler = Callable[[list[Prompt], list[int]], list[list[int]]]
Progress = Callable[[int, int], None]

_FORMAT = 2
_MOST_TOKENS = 2**31  # where the settings do not name the size of the vocabulary


class SampledBy(NamedTuple):
    """All that a response depends on, except for its prompt.

    Attributes:
        seed: The recipe's seed.
        temperature: Sampling temperature.
        model: Digest of the target's weights.
        settings: All else that shapes a response, such as max_response_tokens and dtype.
    """

    seed: int
    temperature: float
    model: str
    settings: Mapping[str, Setting]

    def entries(self) -> dict[str, Setting]:
        """The flat entries of manifest.json."""
        fields: dict[str, Setting] = {
            "format": _FORMAT,
            "seed": self.seed,
            "temperature": self.temperature,
            "model": self.model,
        }
        return fields | {f"settings.{name}": value for name, value in self.settings.items()}


def row_name(prompt: Prompt) -> str:
    """32 hex digits that name the prompt's row: a digest of its key and tokens."""
    content = json.dumps([prompt.key, prompt.tokens]).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def row_seed(seed: int, prompt: Prompt) -> int:
    """The seed of the row's stream of random numbers, in [0, 2**63)."""
    return derive_seed(seed, "target's response", row_name(prompt))


class _Line(NamedTuple):
    """One line of a file of responses.

    Attributes:
        row: The row's name, by which it is looked up.
        key: The prompt's key.
        response: The response's tokens.
    """

    row: str
    key: str
    response: tuple[int, ...]


class StoredResponses:
    """The responses to some prompts, part of which may still be missing."""

    def __init__(
        self,
        parent: StoreFolder,
        prompts: Sequence[Prompt],
        sampled_by: SampledBy,
        *,
        batch: int = 64,
    ) -> None:
        """Open a store; the first row creates it on disk.

        Args:
            parent: The parent folder of the target's stores.
            prompts: The requested prompts, with different keys.
            sampled_by: All that the responses depend on, except for their prompts.
            batch: Number of rows that are sampled together.

        Raises:
            DistillSpecError: The store's manifest is damaged.
        """
        assert len({p.key for p in prompts}) == len(prompts)
        self.sampled_by = sampled_by
        self.folder = parent.folder(sampled_by.entries())
        # Prompts of similar length share a batch, so that sampling pads little.
        ordered = sorted(prompts, key=lambda p: (len(p.tokens), p.key))
        self._names = {p.key: row_name(p) for p in ordered}
        self._batches = [ordered[i : i + batch] for i in range(0, len(ordered), batch)]
        if self.folder.exists():
            self._begin()

    def _begin(self) -> None:
        begin_store(self.folder, self.sampled_by.entries(), "stored responses")

    def prompts(self, rank: int = 0, world: int = 1) -> list[Prompt]:
        """The prompts of the batches whose number is `rank` modulo `world`."""
        return [prompt for batch in self._batches[rank::world] for prompt in batch]

    def missing(self) -> list[list[Prompt]]:
        """For each batch, the prompts whose responses are not stored yet."""
        stored = self._read()
        return [[p for p in batch if self._names[p.key] not in stored] for batch in self._batches]

    @property
    def complete(self) -> bool:
        return not any(self.missing())

    def append(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[int]],
        *,
        rank: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Store the responses to some prompts; they are on disk when this returns.

        Args:
            prompts: Some of the store's prompts.
            responses: The response to each of them, in their order.
            rank: Number of this process, which appends to a separate file.
            seconds: Time spent on sampling them.
        """
        self._begin()
        records = []
        for prompt, response in zip(prompts, responses, strict=True):
            row = {
                "row": self._names[prompt.key],
                "key": prompt.key,
                "response": list(map(int, response)),
            }
            records.append({**row, "check": _checksum(row)})
        note_seconds(self.folder, rank, [self._names[p.key] for p in prompts], seconds)
        with appending(self.folder / f"rows-{rank:05d}.jsonl") as append:
            append(records)

    def known(self) -> dict[str, Tokens]:
        """The stored response tokens, by the key of their prompt."""
        stored = self._read()
        return {key: stored[name] for key, name in self._names.items() if name in stored}

    def responses(self) -> dict[str, Tokens]:
        """All response tokens, by the key of their prompt.

        Raises:
            DistillSpecError: Rows are missing or damaged.
        """
        responses = self.known()
        missing = len(self._names) - len(responses)
        if missing:
            raise DistillSpecError(
                f"{missing} of {len(self._names)} target responses are not sampled yet",
                where=str(self.folder),
                fix="start the same command again: it samples what is missing",
            )
        return responses

    @property
    def seconds(self) -> float:
        """Time spent on sampling the requested rows, by any recipe."""
        return seconds_of(self.folder, self._names.values())

    def _read(self) -> dict[str, Tokens]:
        """Response tokens by the name of their row."""
        known = self.sampled_by.settings.get("vocabulary")
        vocab_size = known if isinstance(known, int) else _MOST_TOKENS
        responses: dict[str, Tokens] = {}
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            text = BoundedText(
                path,
                "a stored response",
                "delete this line and start again: only its prompt is sampled again",
            )
            for position, line in read_lines(text, unfinished=True):
                # `pop` comes first, so the checksum is over the other fields.
                if line.pop("check", None) != _checksum(line):
                    raise text.fault("it is damaged", position)
                row = text.record(_Line, line, position)
                if not all(0 <= token < vocab_size for token in row.response):
                    raise text.fault(
                        f"it has tokens outside of the target's vocabulary of {vocab_size}",
                        position,
                    )
                responses[row.row] = row.response
        return responses


def fill(
    store: StoredResponses,
    sampler: Sampler,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> None:
    """Sample and store the missing rows of the batches whose number is `rank` modulo `world`.

    Args:
        store: The store to fill.
        sampler: Returns the responses to some prompts, given a seed for each.
        rank: Number of this process.
        world: Number of processes that share the work.
        progress: Called with (stored rows, rows) of this process, first for what earlier runs have
            stored.
    """
    waiting = store.missing()[rank::world]
    total = len(store.prompts(rank, world))
    done = total - sum(map(len, waiting))
    if progress is not None:
        progress(done, total)
    for prompts in filter(None, waiting):
        began = time.monotonic()
        seeds = [row_seed(store.sampled_by.seed, prompt) for prompt in prompts]
        responses = sampler(prompts, seeds)
        store.append(prompts, responses, rank=rank, seconds=time.monotonic() - began)
        done += len(prompts)
        if progress is not None:
            progress(done, total)


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 over keys and tokens, independent of their order."""
    digest = hashlib.sha256()
    for prompt in sorted(prompts, key=lambda p: p.key):
        digest.update(json.dumps([prompt.key, prompt.tokens]).encode())
    return digest.hexdigest()


def _checksum(row: Mapping[str, object]) -> int:
    return zlib.crc32(json.dumps(row, sort_keys=True).encode())
