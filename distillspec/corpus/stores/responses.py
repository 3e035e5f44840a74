"""Responses that the target sampled once: stored row by row, for every recipe that asks the same.

A store belongs to one target and one way of sampling (`SampledBy`), and its folder is named by a
digest of these. A row is a prompt's key, its tokens and the response to it. Recipes with the same
target and settings share rows, whatever their names and their other prompts are.

Each row has a stream of random numbers of its own, seeded by the recipe's seed and the row. Rows
are sampled in batches whose composition depends on the wanted prompts alone, and a batch is on the
disk before the next one begins. A killed run loses the batch in flight, and what the next run
samples is what an uninterrupted run, or one of several processes, has sampled.
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
_MOST_TOKENS = 2**31  # of a vocabulary that nobody has named


class SampledBy(NamedTuple):
    """All that a response depends on beside its prompt.

    Attributes:
        seed: Of the recipe.
        temperature: Of the sampling.
        model: Digest of the target's weights.
        settings: All else that shapes a response, such as max_response_tokens and dtype.
    """

    seed: int
    temperature: float
    model: str
    settings: Mapping[str, Setting]

    def entries(self) -> dict[str, Setting]:
        """Flat, as in manifest.json."""
        fields: dict[str, Setting] = {
            "format": _FORMAT,
            "seed": self.seed,
            "temperature": self.temperature,
            "model": self.model,
        }
        return fields | {f"settings.{name}": value for name, value in self.settings.items()}


def row_name(prompt: Prompt) -> str:
    """32 hex digits that name the prompt's row: of its key and tokens."""
    content = json.dumps([prompt.key, prompt.tokens]).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def row_seed(seed: int, prompt: Prompt) -> int:
    """In [0, 2**63): what the stream of random numbers of the prompt's row starts from."""
    return derive_seed(seed, "target's response", row_name(prompt))


class _Line(NamedTuple):
    """Of a file of responses. row: by which it is found. key: of its prompt."""

    row: str
    key: str
    response: tuple[int, ...]


class StoredResponses:
    """The responses to `prompts` in a store, some of them maybe still missing."""

    def __init__(
        self,
        place: StoreFolder,
        prompts: Sequence[Prompt],
        sampled_by: SampledBy,
        *,
        batch: int = 64,
    ) -> None:
        """Open a store; it begins to be on the disk with its first row.

        Args:
            place: Where stores of the target lie.
            prompts: The wanted ones, with different keys.
            sampled_by: What the responses depend on.
            batch: Rows that are sampled together.

        Raises:
            DistillSpecError: The store's manifest is damaged.
        """
        assert len({p.key for p in prompts}) == len(prompts)
        self.sampled_by = sampled_by
        self.folder = place.folder(sampled_by.entries())
        # Prompts of one length share a batch: little padding while sampling.
        ordered = sorted(prompts, key=lambda p: (len(p.tokens), p.key))
        self._names = {p.key: row_name(p) for p in ordered}
        self._batches = [ordered[i : i + batch] for i in range(0, len(ordered), batch)]
        if self.folder.exists():
            self._begin()

    def _begin(self) -> None:
        begin_store(self.folder, self.sampled_by.entries(), "stored responses")

    def prompts(self, rank: int = 0, world: int = 1) -> list[Prompt]:
        """Those of the batches whose number is `rank` modulo `world`."""
        return [prompt for batch in self._batches[rank::world] for prompt in batch]

    def missing(self) -> list[list[Prompt]]:
        """Of each batch, the prompts whose responses are not stored yet."""
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
        """Store the responses to some prompts; they are on the disk when this returns.

        Args:
            prompts: Some of the store's.
            responses: One for each of them, in their order.
            rank: This process, which appends to a file of its own.
            seconds: What sampling them took.
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
        """The response tokens that are there, by the key of their prompt."""
        stored = self._read()
        return {key: stored[name] for key, name in self._names.items() if name in stored}

    def responses(self) -> dict[str, Tokens]:
        """Response tokens by the key of their prompt.

        Raises:
            DistillSpecError: Rows are missing or damaged.
        """
        found = self.known()
        missing = len(self._names) - len(found)
        if missing:
            raise DistillSpecError(
                f"{missing} of {len(self._names)} target responses are not sampled yet",
                where=str(self.folder),
                fix="start the same command again: it samples what is missing",
            )
        return found

    @property
    def seconds(self) -> float:
        """What sampling the wanted rows took, whichever recipes have asked for them."""
        return seconds_of(self.folder, self._names.values())

    def _read(self) -> dict[str, Tokens]:
        """Response tokens by the name of their row."""
        known = self.sampled_by.settings.get("vocabulary")
        most = known if isinstance(known, int) else _MOST_TOKENS
        found: dict[str, Tokens] = {}
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            kept = BoundedText(
                path,
                "a stored response",
                "delete this line and start again: only its prompt is sampled again",
            )
            for place, line in read_lines(kept, unfinished=True):
                if line.pop("check", None) != _checksum(line):
                    raise kept.fault("it is damaged", place)
                row = kept.record(_Line, line, place)
                if not all(0 <= token < most for token in row.response):
                    raise kept.fault(f"it has tokens outside of the {most} of the target", place)
                found[row.row] = row.response
        return found


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
        store: What is filled.
        sampler: Of prompts and a seed for each, their responses.
        rank: This process.
        world: How many processes share the work.
        progress: Called with (rows of this process that are stored, rows of this process), first
            for what earlier runs have stored.
    """
    waiting = store.missing()[rank::world]
    total = len(store.prompts(rank, world))
    done = total - sum(map(len, waiting))
    if progress is not None:
        progress(done, total)
    for prompts in filter(None, waiting):
        began = time.monotonic()
        responses = sampler(prompts, [row_seed(store.sampled_by.seed, one) for one in prompts])
        store.append(prompts, responses, rank=rank, seconds=time.monotonic() - began)
        done += len(prompts)
        if progress is not None:
            progress(done, total)


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 over keys and tokens, whatever their order."""
    digest = hashlib.sha256()
    for prompt in sorted(prompts, key=lambda p: p.key):
        digest.update(json.dumps([prompt.key, prompt.tokens]).encode())
    return digest.hexdigest()


def _checksum(row: Mapping[str, object]) -> int:
    return zlib.crc32(json.dumps(row, sort_keys=True).encode())
