"""The target's distributions over known texts, computed once and kept in shards on disk.

A text is identified by its tokens and by the position where its prediction begins, not by prompt
key or source. The target's distribution depends on nothing else, so equal texts share records and
no row of a batch can get another text's records. Texts lie in the order of their length, then of
their digest; the records of a text in the order of its predicted tokens.

A shard ends with a checksum of each text, over its records, its digest and the manifest. Shards are
written under a temporary name and renamed, so that a killed run leaves complete shards only, and
several processes can each make their part.

Why not safetensors: shards of the same four fields take the same space (324.04 in place of 324.02
bytes per token at k = 64 and a vocabulary of 152,064). Reading 16 texts of 200 tokens takes 1.2
to 1.3 times the CPU time (3.0 to 3.1 in place of 2.4 to 2.5 ms, medians of 60 batches in two runs),
since each field is read separately. The format checks no content, so the checksums would stay. Some
40 lines that read the shards of existing stores would stay too, so the code would grow.
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
from distillspec.corpus.stores.shard_layout import CHECKSUM, ShardLayout
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
from distillspec.recipe.target_logits import CachedTargetConfig
from distillspec.runtime.atomic import replacing_file

_FORMAT = 1
_MOST_OPEN = 256  # shards mapped at one time: each takes a file descriptor
_SPARE_BYTES = 2**24  # of the disk, for what else a run writes before its first checkpoint


class TopKText(NamedTuple):
    """A text, and the position of its first predicted token (1 or more)."""

    tokens: Tokens
    first: int

    @property
    def predicted(self) -> int:
        """Number of tokens that have a record."""
        return max(len(self.tokens) - self.first, 0)

    @property
    def digest(self) -> bytes:
        """16 bytes that name the text."""
        content = np.array([self.first, *self.tokens], dtype="<i4").tobytes()
        return hashlib.sha256(content).digest()[:16]


Scorer = Callable[[list[TopKText]], list[TopTokens]]


class _Shard(NamedTuple):
    """One file, mapped into memory."""

    records: Records
    checksums: NDArray[np.uint32]


class TopKStore:
    """The records of some texts, part of which may still be missing."""

    def __init__(
        self,
        parent: StoreFolder,
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
        """Open or begin a store, whose folder is named by a digest of all that shapes it.

        Args:
            parent: The parent folder of the target's stores.
            texts: The texts; equal ones are stored once, those without predicted tokens never.
            signal: How many tokens of each distribution are stored, and in which type.
            vocab_size: Number of tokens that the distribution is over.
            temperature: Divides the target's logits.
            model: Digest of the target's weights.
            tokenizer: Digest of the vocabulary.
            settings: All else that shapes the distribution, such as the target's dtype.
            shard_bytes: Bound of a shard; see `ShardLayout`.

        Raises:
            DistillSpecError: k exceeds the vocabulary, or the manifest is damaged.
        """
        if signal.k > vocab_size:
            raise DistillSpecError(
                f"the {signal.k} most probable of {vocab_size} tokens cannot be cached",
                where=f"distill.target_logits.k={signal.k}",
                fix=f"set it to at most {vocab_size}, which caches the entire distribution",
            )
        self._vocab_size = vocab_size
        self._dtype = record_type(signal, vocab_size)
        by_digest = {text.digest: text for text in texts if text.predicted}
        self._texts = dict(
            sorted(by_digest.items(), key=lambda item: (len(item[1].tokens), item[0]))
        )
        self._layout = ShardLayout(
            {digest: text.predicted for digest, text in self._texts.items()},
            self._dtype.itemsize,
            shard_bytes,
        )
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
        self.folder = parent.folder(self.manifest)
        begin_store(self.folder, self.manifest, "cached distributions")
        self._seed = zlib.crc32(json.dumps(self.manifest, sort_keys=True).encode())
        self._open: dict[int, _Shard] = {}

    # --- sizes ---

    @property
    def texts(self) -> int:
        """Number of different texts that have records."""
        return len(self._texts)

    @property
    def tokens(self) -> int:
        """Number of records, one for each predicted token of a text."""
        return sum(self._layout.rows)

    @property
    def shards(self) -> int:
        return len(self._layout.rows)

    @property
    def shard_bytes(self) -> int:
        return self._layout.shard_bytes

    @property
    def bytes_per_token(self) -> int:
        return self._dtype.itemsize

    @property
    def size_bytes(self) -> int:
        """Size of all shards, those that are missing included."""
        return sum(map(self._layout.file_bytes, range(self.shards)))

    def missing(self) -> list[int]:
        """Numbers of the shards that are not on disk yet."""
        return [number for number in range(self.shards) if not self._path(number).exists()]

    @property
    def seconds(self) -> float:
        """Time spent on the shards, summed over all processes."""
        return seconds_of(self.folder, (self._path(number).name for number in range(self.shards)))

    def check_space(self) -> None:
        """Raise a DistillSpecError where the disk has no room for the missing shards."""
        needed = sum(map(self._layout.file_bytes, self.missing()))
        free = shutil.disk_usage(self.folder).free
        if needed and needed + _SPARE_BYTES > free:
            raise DistillSpecError(
                f"the cached distributions need {size_in_words(needed)} more, and the disk has "
                f"{size_in_words(free)} free",
                where=str(self.folder),
                fix=f"free some space, choose another disk (distill.target_logits.store=...), or "
                f"lower distill.target_logits.k ({self.bytes_per_token} bytes a token now) or "
                "data.max_prompts",
            )

    # --- writing ---

    def contents(self, number: int) -> list[TopKText]:
        """The texts of one shard, in their order."""
        return [self._texts[digest] for digest in self._layout.texts[number]]

    def append(self, number: int, distributions: Iterable[TopTokens]) -> None:
        """Write one shard, entirely or not at all.

        Args:
            number: The shard.
            distributions: Those of each text of `contents(number)`.

        Raises:
            DistillSpecError: A distribution is not finite, or the disk is full.
        """
        digests = self._layout.texts[number]
        records = np.empty(self._layout.rows[number], self._dtype)
        checksums = np.empty(len(digests), CHECKSUM)
        for digest, distribution in zip(digests, distributions, strict=True):
            _, nth, start, stop = self._layout.ranges[digest]
            assert distribution.ids.shape[0] == stop - start
            assert distribution.vocab_size == self._vocab_size
            # NaN fails this comparison too.
            if not bool((distribution.log_probability[:, 0] > -np.inf).all()):
                raise DistillSpecError(
                    "the target's distribution is not finite (NaN)",
                    where=f"shard {number} of {self.folder}",
                    fix="try hardware.precision=float32, or look for damaged weights of the target",
                )
            records[start:stop] = packed(distribution, self._dtype)
            checksums[nth] = self._checksum(digest, records[start:stop])
        path = self._path(number)
        with replacing_file(path) as temporary, temporary.open("wb") as handle:
            handle.write(records.tobytes())
            handle.write(checksums.tobytes())

    def note_seconds(self, number: int, rank: int, seconds: float) -> None:
        """Record the time that process `rank` took for one shard."""
        note_seconds(self.folder, rank, [self._path(number).name], seconds)

    # --- reading ---

    def read(self, texts: Sequence[TopKText]) -> TopTokens:
        """The records of these texts, concatenated in their order.

        Shards are mapped into memory, so that only the part of these texts is read from disk.

        Raises:
            DistillSpecError: A text is not in the store, or its shard is damaged.
        """
        parts = [self._records(text) for text in texts if text.predicted]
        joined = np.concatenate(parts) if parts else np.empty(0, self._dtype)
        return unpacked(joined, self._vocab_size)

    def _records(self, text: TopKText) -> Records:
        digest = text.digest
        position = self._layout.ranges.get(digest)
        if position is None:
            raise DistillSpecError(
                f"no distributions are cached for a text of {len(text.tokens)} tokens",
                where=str(self.folder),
                fix="start the run again: it adds what is missing. Texts must be the data's "
                "responses or the stored responses of the target",
            )
        shard = self._mapped(position.shard)
        records = shard.records[position.start : position.stop]
        if self._checksum(digest, records) != shard.checksums[position.nth]:
            raise self._damaged(position.shard)
        return records

    def _mapped(self, number: int) -> _Shard:
        """The shard's file; the shards used last stay open."""
        # Taken out and put back at the end: the dict begins with the least recent one.
        shard = self._open.pop(number, None) or self._map(number)
        self._open[number] = shard
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
        return shard

    def _map(self, number: int) -> _Shard:
        try:
            content = np.memmap(self._path(number), np.uint8, mode="r")
        except (OSError, ValueError) as error:  # absent, or empty
            raise self._damaged(number) from error
        if content.nbytes != self._layout.file_bytes(number):
            raise self._damaged(number)
        end = self._layout.record_bytes(number)
        return _Shard(content[:end].view(self._dtype), content[end:].view(CHECKSUM))

    def _damaged(self, number: int) -> DistillSpecError:
        path = self._path(number)
        return DistillSpecError(
            "a shard of cached distributions is missing, damaged or of another store",
            where=str(path),
            fix=f"delete {path} and start again: only this shard is computed again",
        )

    def _checksum(self, digest: bytes, records: Records) -> int:
        """Over records, text and manifest, so that records fit no other text or store."""
        return zlib.crc32(records.tobytes(), zlib.crc32(digest, self._seed))

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.bin"


def fill_top_k(
    store: TopKStore,
    scorer: Scorer,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> None:
    """Make the missing shards whose number is `rank` modulo `world`.

    Args:
        store: The store to fill.
        scorer: Computes the distributions of some texts.
        rank: Number of this process.
        world: Number of processes that share the work.
        progress: Called with (finished shards, shards) of this process, first for what an earlier
            run has finished.
    """
    numbers = range(rank, store.shards, world)
    waiting = [number for number in store.missing() if number in numbers]
    done = len(numbers) - len(waiting)
    if progress is not None:
        progress(done, len(numbers))
    for number in waiting:
        began = time.monotonic()
        store.append(number, scorer(store.contents(number)))
        store.note_seconds(number, rank, time.monotonic() - began)
        done += 1
        if progress is not None:
            progress(done, len(numbers))


def size_in_words(size: int) -> str:
    """Bytes in the largest unit that they reach: 260 bytes, 1.50 GiB."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024.0:
            break
        value, unit = value / 1024.0, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.3g} {unit}"
