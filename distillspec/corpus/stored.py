"""Responses that the target sampled once: stored batch by batch, with a manifest of their making.

Each batch of prompts is one small data set on disk, written beside its place and renamed, so that a
killed run leaves whole batches only and the next one samples the missing ones. The seed of a batch
comes from its number: an interrupted generation, or one of several processes, gives what an
uninterrupted one gives.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import datasets
from datasets.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from distillspec.atomic import make_folder, replacing_folder, write_json
from distillspec.corpus.prompts import Prompt
from distillspec.corpus.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.seeds import derive_seed

Setting = str | int | float | bool | None
Sampler = Callable[[list[Prompt], int], list[list[int]]]
Progress = Callable[[int, int], None]

_FORMAT = 1


class Manifest(NamedTuple):
    """What stored responses depend on; a store made under another manifest is never reused.

    model: digest of the target's weights. settings: all else that shapes a response, such as
    max_response_tokens, top_k and dtype. prompts: digest of keys and tokens. batch: prompts in one.
    """

    seed: int
    temperature: float
    model: str
    settings: Mapping[str, Setting]
    prompts: str
    batch: int

    def entries(self) -> dict[str, Setting]:
        """Flat, as in manifest.json."""
        fields: dict[str, Setting] = {
            "format": _FORMAT,
            "seed": self.seed,
            "temperature": self.temperature,
            "model": self.model,
            "prompts": self.prompts,
            "batch": self.batch,
        }
        return fields | {f"settings.{name}": value for name, value in self.settings.items()}


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 over keys and tokens, whatever their order."""
    digest = hashlib.sha256()
    for prompt in sorted(prompts, key=lambda p: p.key):
        digest.update(json.dumps([prompt.key, prompt.tokens]).encode())
    return digest.hexdigest()


class StoredResponses:
    """The responses to `prompts` in `folder`, some of them maybe still missing."""

    def __init__(
        self,
        folder: Path,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        temperature: float,
        model: str,
        settings: Mapping[str, Setting],
        batch: int = 64,
    ) -> None:
        """Open or begin a store. Errors: one that was made under another manifest."""
        assert len({p.key for p in prompts}) == len(prompts)
        self.folder = folder
        self.manifest = Manifest(seed, temperature, model, settings, prompts_digest(prompts), batch)
        # Prompts of one length share a batch: little padding while sampling.
        ordered = sorted(prompts, key=lambda p: (len(p.tokens), p.key))
        self._batches = [ordered[i : i + batch] for i in range(0, len(ordered), batch)]
        make_folder(folder)
        path = folder / "manifest.json"
        if path.exists():
            check_manifest(path, self.manifest.entries())
        else:
            write_json(path, self.manifest.entries())

    @property
    def batches(self) -> int:
        return len(self._batches)

    @property
    def complete(self) -> bool:
        return not self.missing()

    def missing(self) -> list[int]:
        """Numbers of the batches that are not stored yet."""
        return [i for i in range(self.batches) if not self._place(i).exists()]

    def missing_keys(self) -> list[str]:
        return [prompt.key for i in self.missing() for prompt in self._batches[i]]

    def prompts(self, number: int) -> list[Prompt]:
        """The prompts of one batch."""
        return list(self._batches[number])

    def batch_seed(self, number: int) -> int:
        """In [0, 2**63): what the sampler of this batch starts from."""
        return derive_seed(self.manifest.seed, "batch of responses", number)

    def append(self, number: int, responses: Sequence[Sequence[int]]) -> None:
        """Store one batch, wholly or not at all; responses in the order of `prompts(number)`."""
        prompts = self._batches[number]
        assert len(responses) == len(prompts)
        place = self._place(number)
        for left in self.folder.glob(f".{place.name}.*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        columns = {"key": [p.key for p in prompts], "response": [list(r) for r in responses]}
        features = datasets.Features(
            {"key": datasets.Value("string"), "response": datasets.List(datasets.Value("int32"))}
        )
        with _no_progress_bar(), replacing_folder(place) as temporary:
            datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(temporary))

    def responses(self) -> dict[str, Tokens]:
        """Response tokens by the key of their prompt. Errors: batches missing or unreadable."""
        missing = len(self.missing_keys())
        if missing:
            raise DistillSpecError(
                f"{missing} of {sum(map(len, self._batches))} target responses are not sampled yet",
                where=str(self.folder),
                mend="start the same command again: it samples what is missing",
            )
        found: dict[str, Tokens] = {}
        for number in range(self.batches):
            found |= self._read(number)
        return found

    def _read(self, number: int) -> dict[str, Tokens]:
        place = self._place(number)
        keys = [p.key for p in self._batches[number]]
        try:
            columns = datasets.load_from_disk(str(place))[:]
        except Exception as error:  # pyarrow and datasets raise of every kind
            raise _damaged(place) from error
        if columns.get("key") != keys or "response" not in columns:
            raise _damaged(place)
        return {k: tuple(r) for k, r in zip(keys, columns["response"], strict=True)}

    def _place(self, number: int) -> Path:
        return self.folder / f"batch-{number:06d}"


def fill(
    store: StoredResponses,
    sampler: Sampler,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> None:
    """Sample and store the missing batches whose number is `rank` modulo `world`.

    sampler: (prompts, seed) -> a response for each. progress: called with (batches of this rank
    that are stored, batches of this rank), first for what an earlier run has stored.
    """
    mine = range(rank, store.batches, world)
    waiting = [number for number in store.missing() if number in mine]
    done = len(mine) - len(waiting)
    if progress is not None:
        progress(done, len(mine))
    for number in waiting:
        store.append(number, sampler(store.prompts(number), store.batch_seed(number)))
        done += 1
        if progress is not None:
            progress(done, len(mine))


def check_manifest(
    path: Path,
    wanted: Mapping[str, Setting],
    *,
    what: str = "stored responses",
    key: str = "data.store",
) -> None:
    """DistillSpecError where the manifest at `path` says otherwise than `wanted`, or nothing.

    what: is kept there, in the plural. key: of the recipe, that names the folder.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(stored, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise DistillSpecError(
            f"the manifest of the {what} cannot be read",
            where=str(path),
            mend=f"delete {path.parent} to make them anew, or choose another folder: {key}=...",
        ) from error
    differing = [
        f"{name}: stored {_short(stored.get(name))}, now {_short(wanted.get(name))}"
        for name in sorted({*stored, *wanted})
        if stored.get(name) != wanted.get(name)
    ]
    if differing:
        raise DistillSpecError(
            f"the {what} were made differently ({'; '.join(differing)})",
            where=str(path),
            mend=f"restore these entries, or make them in another folder ({key}=...), or "
            f"delete {path.parent} to make them anew",
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}...{text[-5:]}"


def _damaged(place: Path) -> DistillSpecError:
    return DistillSpecError(
        "a stored batch of responses is damaged",
        where=str(place),
        mend=f"delete {place} and start again: only this batch is sampled anew",
    )


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """A bar for every batch of 64 rows would bury ours."""
    enabled = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            enable_progress_bar()
