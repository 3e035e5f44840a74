"""The target's distributions over known texts, computed once: shards of fixed-size records.

A text is known by its tokens and by where its prediction begins, whatever prompt key or source it
comes from: the target's distribution of it depends on nothing else, equal texts are kept once, and
no row of a batch can be given another text's records. Texts lie in the order of their length, then
of their digest; a text's records in the order of its predicted tokens. Shards hold whole texts, and
end with a checksum of each, over its records, its digest and the manifest. They are written beside
their place and renamed, so that a killed run leaves whole shards only, and several processes can
each make their part.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.responses import Progress
from distillspec.corpus.stores.store_folder import (
    Setting,
    StoreFolder,
    begin_store,
    note_seconds,
    seconds_of,
)
from distillspec.corpus.stores.top_k_records import Records, packed, record_type, unpacked
from distillspec.divergence.top_tokens import TopTokens
from distillspec.errors import DistillSpecError
from distillspec.recipe.distill import CachedTargetConfig
from distillspec.runtime.atomic import replacing_file

_FORMAT = 1
_PARTS = 32  # of a small store, so that processes share it and a kill costs little
_SHARD_BYTES = (2**18, 2**23)  # least and most
_MOST_OPEN = 256  # shards mapped at one time: each takes a file descriptor
_CHECKSUM = np.dtype("<u4")
_SPARE_BYTES = 2**24  # of the disk, for what else a run writes before its first checkpoint


class TopKText(NamedTuple):
    """A text, and the place of the first token of it that is predicted (1 or more)."""

    tokens: Tokens
    first: int

    @property
    def predicted(self) -> int:
        """Tokens that have a record."""
        return max(len(self.tokens) - self.first, 0)

    @property
    def digest(self) -> bytes:
        """16 bytes that name the text."""
        content = np.array([self.first, *self.tokens], dtype="<i4").tobytes()
        return hashlib.sha256(content).digest()[:16]


Scorer = Callable[[list[TopKText]], list[TopTokens]]


class _Place(NamedTuple):
    """Where a text's records lie: rows start..stop of a shard, of which it is the `nth` text."""

    shard: int
    nth: int
    start: int
    stop: int


class _Shard(NamedTuple):
    """One file, mapped into memory."""

    records: Records
    checksums: NDArray[np.uint32]


class TopKStore:
    """The records of `texts` in `folder`, some of them maybe still missing."""

    def __init__(
        self,
        place: StoreFolder,
        texts: Iterable[TopKText],
        signal: CachedTargetConfig,
        *,
        vocab_size: int,
        temperature: float,
        model: str,
        tokenizer: str,
        settings: dict[str, Setting],
        shard_bytes: int | None = None,
    ) -> None:
        """Open or begin a store. vocab_size: tokens that the distribution is over. model,
        tokenizer: digests. settings: all else that shapes the distribution, such as the target's
        dtype. shard_bytes: a shard is at most so large; default: by the size of the whole.

        The folder is named by a digest of all these: recipes that differ in nothing else share it.

        Errors: a k that the vocabulary does not have; a damaged manifest.
        """
        if signal.k > vocab_size:
            raise DistillSpecError(
                f"the {signal.k} likeliest of {vocab_size} tokens cannot be kept",
                where=f"distill.target_logits.k={signal.k}",
                fix=f"set it to at most {vocab_size}, which keeps the whole distribution",
            )
        self._vocab_size = vocab_size
        self._kind = record_type(signal, vocab_size)
        by_digest = {text.digest: text for text in texts if text.predicted}
        ordered = sorted(by_digest.items(), key=lambda each: (len(each[1].tokens), each[0]))
        if shard_bytes is None:
            whole = sum(text.predicted for text in by_digest.values()) * self._kind.itemsize
            shard_bytes = min(max(whole // _PARTS, _SHARD_BYTES[0]), _SHARD_BYTES[1])
        self.shard_bytes = shard_bytes
        self._shards: list[list[TopKText]] = []
        self._places: dict[bytes, _Place] = {}
        self._rows: list[int] = []
        for digest, text in ordered:
            self._lay(digest, text)
        self.manifest: dict[str, Setting] = {
            "format": _FORMAT,
            "model": model,
            "tokenizer": tokenizer,
            "vocabulary": vocab_size,
            "temperature": temperature,
            "k": signal.k,
            "dtype": signal.dtype,
            "texts": hashlib.sha256(b"".join(sorted(by_digest))).hexdigest(),
            **{f"settings.{name}": value for name, value in settings.items()},
        }
        self.folder = place.folder(self.manifest)
        begin_store(self.folder, self.manifest, "kept distributions")
        self._seed = zlib.crc32(json.dumps(self.manifest, sort_keys=True).encode())
        self._open: dict[int, _Shard] = {}

    # --- how much ---

    @property
    def texts(self) -> int:
        """Different texts that have records."""
        return len(self._places)

    @property
    def tokens(self) -> int:
        """Records, one for each predicted token of a text."""
        return sum(self._rows)

    @property
    def shards(self) -> int:
        return len(self._shards)

    @property
    def bytes_per_token(self) -> int:
        return self._kind.itemsize

    @property
    def size_bytes(self) -> int:
        """Of all shards, whether they are there or not."""
        return sum(map(self._size, range(self.shards)))

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [number for number in range(self.shards) if not self._path(number).exists()]

    @property
    def seconds(self) -> float:
        """What making the shards took, over all processes."""
        return seconds_of(self.folder, (self._path(number).name for number in range(self.shards)))

    def check_space(self) -> None:
        """DistillSpecError where the disk has no room for what is missing."""
        needed = sum(map(self._size, self.missing()))
        free = shutil.disk_usage(self.folder).free
        if needed and needed + _SPARE_BYTES > free:
            raise DistillSpecError(
                f"the kept distributions need {in_words(needed)} more, and the disk has "
                f"{in_words(free)} free",
                where=str(self.folder),
                fix=f"free some space, choose another disk (distill.target_logits.store=...), or "
                f"lower distill.target_logits.k ({self.bytes_per_token} bytes a token now) or "
                "data.max_prompts",
            )

    # --- writing ---

    def contents(self, number: int) -> list[TopKText]:
        """The texts of one shard, in their order."""
        return list(self._shards[number])

    def append(self, number: int, distributions: Iterable[TopTokens]) -> None:
        """Write one shard, wholly or not at all; a distribution of each text of `contents(number)`.

        Errors: a distribution that is not finite; a disk that is full.
        """
        records = np.empty(self._rows[number], self._kind)
        checksums = np.empty(len(self._shards[number]), _CHECKSUM)
        for text, distribution in zip(self._shards[number], distributions, strict=True):
            place = self._places[text.digest]
            assert (
                distribution.ids.shape[0] == text.predicted
                and distribution.vocab_size == self._vocab_size
            )
            if not bool((distribution.log_probability[:, 0] > -np.inf).all()):
                raise DistillSpecError(
                    "the target's distribution is not finite (NaN)",
                    where=f"shard {number} of {self.folder}",
                    fix="try hardware.precision=float32, or look for damaged weights of the target",
                )
            mine = records[place.start : place.stop]
            mine[:] = packed(distribution, self._kind)
            checksums[place.nth] = self._checksum(text.digest, mine)
        path = self._path(number)
        with replacing_file(path) as temporary, temporary.open("wb") as handle:
            handle.write(records.tobytes())
            handle.write(checksums.tobytes())

    def note_seconds(self, number: int, rank: int, seconds: float) -> None:
        """Write down what process `rank` took for one shard."""
        note_seconds(self.folder, rank, [self._path(number).name], seconds)

    # --- reading ---

    def read(self, texts: Sequence[TopKText]) -> TopTokens:
        """The records of these texts, one after another. Errors: a text that is not here; damage.

        Shards are mapped into memory: of the file, no more is read than these texts' part.
        """
        parts = [self._records(text) for text in texts if text.predicted]
        joined = np.concatenate(parts) if parts else np.empty(0, self._kind)
        return unpacked(joined, self._vocab_size)

    def _records(self, text: TopKText) -> Records:
        digest = text.digest
        place = self._places.get(digest)
        if place is None:
            raise DistillSpecError(
                f"of a text of {len(text.tokens)} tokens no distributions are kept",
                where=str(self.folder),
                fix="start the run again: it keeps what is missing. Texts must be the data's own "
                "or the stored responses of the target",
            )
        shard = self._mapped(place.shard)
        records = shard.records[place.start : place.stop]
        if self._checksum(digest, records) != shard.checksums[place.nth]:
            raise self._damaged(place.shard)
        return records

    def _mapped(self, number: int) -> _Shard:
        """The shard's file; those that were used last stay open."""
        shard = self._open.pop(number, None) or self._map(number)
        self._open[number] = shard
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
        return shard

    def _map(self, number: int) -> _Shard:
        try:
            whole = np.memmap(self._path(number), np.uint8, mode="r")
        except (OSError, ValueError) as error:  # absent, or empty
            raise self._damaged(number) from error
        if whole.nbytes != self._size(number):
            raise self._damaged(number)
        end = self._rows[number] * self._kind.itemsize
        return _Shard(whole[:end].view(self._kind), whole[end:].view(_CHECKSUM))

    def _damaged(self, number: int) -> DistillSpecError:
        path = self._path(number)
        return DistillSpecError(
            "a shard of kept distributions is missing, damaged or of another store",
            where=str(path),
            fix=f"delete {path} and start again: only this shard is made anew",
        )

    # --- the layout ---

    def _lay(self, digest: bytes, text: TopKText) -> None:
        """After the text before it, in the same shard where that has room."""
        size = self._kind.itemsize
        if not self._shards or (self._rows[-1] + text.predicted) * size > self.shard_bytes:
            self._shards.append([])
            self._rows.append(0)
        start, nth = self._rows[-1], len(self._shards[-1])
        self._shards[-1].append(text)
        self._rows[-1] += text.predicted
        self._places[digest] = _Place(len(self._shards) - 1, nth, start, self._rows[-1])

    def _size(self, number: int) -> int:
        checksums = len(self._shards[number]) * _CHECKSUM.itemsize
        return self._rows[number] * self._kind.itemsize + checksums

    def _checksum(self, digest: bytes, records: Records) -> int:
        """Of the records and of what they are of: they fit no other text or store."""
        return zlib.crc32(records.tobytes(), zlib.crc32(digest, self._seed))

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.bin"


def fill_signals(
    store: TopKStore,
    scorer: Scorer,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> None:
    """Make the missing shards whose number is `rank` modulo `world`.

    progress: called with (shards of this rank that are there, shards of this rank), first for what
    an earlier run has made.
    """
    mine = range(rank, store.shards, world)
    waiting = [number for number in store.missing() if number in mine]
    done = len(mine) - len(waiting)
    if progress is not None:
        progress(done, len(mine))
    for number in waiting:
        began = time.monotonic()
        store.append(number, scorer(store.contents(number)))
        store.note_seconds(number, rank, time.monotonic() - began)
        done += 1
        if progress is not None:
            progress(done, len(mine))


def in_words(size: int) -> str:
    """Bytes in the largest unit that they reach: 260 bytes, 1.50 GiB."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024.0:
            break
        value, unit = value / 1024.0, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.3g} {unit}"
