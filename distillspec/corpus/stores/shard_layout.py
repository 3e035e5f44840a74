"""The position of each text's records in the shards of a store.

A shard holds the records of entire texts, then one checksum per text. The layout depends on the
order and the sizes of the texts alone, so every process computes the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

CHECKSUM = np.dtype("<u4")
_PARTS = 32  # of a small store, so that processes share it and a kill costs little
_SHARD_BYTES = (2**18, 2**23)  # least and most


class RecordRange(NamedTuple):
    """The records of one text.

    Attributes:
        shard: Number of the shard.
        nth: Number of the text in the shard.
        start: Its first row in the shard.
        stop: The row after its last one.
    """

    shard: int
    nth: int
    start: int
    stop: int


class ShardLayout:
    """Texts in shards of bounded size; a text that exceeds the bound has a shard alone.

    Attributes:
        shard_bytes: Bound of the records of a shard with several texts, bytes.
        texts: Digests of the texts of each shard, in their order.
        rows: Number of records of each shard.
        ranges: The records of each text, by its digest.
    """

    def __init__(
        self, predicted: Mapping[bytes, int], record_bytes: int, shard_bytes: int | None = None
    ) -> None:
        """Lay out the texts in the order of the mapping.

        Args:
            predicted: Records of each text, by its digest.
            record_bytes: Size of one record.
            shard_bytes: Bound of a shard. Default: a 32nd of the store, from 256 KiB to 8 MiB.
        """
        if shard_bytes is None:
            total = sum(predicted.values()) * record_bytes
            shard_bytes = min(max(total // _PARTS, _SHARD_BYTES[0]), _SHARD_BYTES[1])
        self.shard_bytes, self._record_bytes = shard_bytes, record_bytes
        self.texts: list[list[bytes]] = []
        self.rows: list[int] = []
        self.ranges: dict[bytes, RecordRange] = {}
        for digest, count in predicted.items():
            self._append(digest, count)

    def _append(self, digest: bytes, count: int) -> None:
        """Put a text behind the text before it, or into a new shard where there is no room."""
        if not self.texts or (self.rows[-1] + count) * self._record_bytes > self.shard_bytes:
            self.texts.append([])
            self.rows.append(0)
        start, nth = self.rows[-1], len(self.texts[-1])
        self.texts[-1].append(digest)
        self.rows[-1] += count
        self.ranges[digest] = RecordRange(len(self.texts) - 1, nth, start, self.rows[-1])

    def file_bytes(self, number: int) -> int:
        """Size of one shard's file: its records and its checksums."""
        return self.record_bytes(number) + len(self.texts[number]) * CHECKSUM.itemsize

    def record_bytes(self, number: int) -> int:
        """Size of the records of one shard, at whose end its checksums begin."""
        return self.rows[number] * self._record_bytes
