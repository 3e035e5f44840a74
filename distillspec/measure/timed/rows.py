"""rows.jsonl: a line per prompt and cell, raw counts and seconds; everything else follows from it.

A block is all that was timed around one prompt at one temperature: the baseline and every cell,
interleaved. It is appended whole, so its rows come from one process, and an interrupted evaluation
goes on with the first unfinished block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from distillspec.runtime import atomic
from distillspec.runtime.journal import add_lines
from distillspec.runtime.plain_files import BoundedText, read_lines
from distillspec.speculation.records import Counts, Generation, TokenStatus

_LETTERS = {
    TokenStatus.ACCEPTED: "a",
    TokenStatus.CORRECTED: "c",
    TokenStatus.BONUS: "b",
    TokenStatus.PLAIN: "p",
}
FATES = {letter: fate.name.lower() for fate, letter in _LETTERS.items()}


class DraftedAt(NamedTuple):
    """A round that was not cut. context: tokens before its first drafted one, prompt and output."""

    context: int
    drafted: int
    accepted: int


@dataclass(frozen=True)
class CellRow:
    """One decoded text. draft, method and gamma are None for autoregressive decoding.

    prompt: its number; repeat: how often this was timed before; place: when within the block;
    run: the process that timed it. fates: a letter a token: accepted, corrected, bonus, plain.
    seconds: decoding, after the prefill. counts: as in `speculation.records`. The busy seconds are
    those of each side where the two work at the same time. rounds: those that drafted and were not
    cut. category: the prompt's, None where it has none. document: what the prompt comes from; None
    in rows that an earlier version wrote. again: of a cell that is timed a second time.
    """

    prompt: int
    prompt_key: str
    temperature: float
    draft: str | None
    method: str | None
    gamma: int | None
    repeat: int
    place: int
    run: str
    seconds: float
    prefill_seconds: float
    tokens: list[int]
    fates: str
    counts: Counts
    target_busy_seconds: float | None = None
    draft_busy_seconds: float | None = None
    rounds: list[DraftedAt] = field(default_factory=list)
    category: str | None = None
    document: str | None = None
    again: bool = False

    @property
    def unit(self) -> str:
        """The document; of an earlier version's row the prompt itself."""
        return f"prompt {self.prompt}" if self.document is None else self.document

    @property
    def block(self) -> tuple[int, float]:
        return self.prompt, self.temperature


def letters(generation: Generation) -> str:
    """The fates of a text as one letter a token."""
    return "".join(_LETTERS[fate] for fate in generation.fates)


def drafted_at(generation: Generation, prompt_tokens: int) -> list[DraftedAt]:
    """Where in the context each round of a text drafted, and what became of it; cut ones apart."""
    found, context = [], prompt_tokens
    for record in generation.rounds:
        if record.drafted and not record.cut:
            found.append(DraftedAt(context, record.drafted, record.accepted))
        context += record.emitted
    return found


class RowLog:
    """The rows of finished blocks, and the file they are appended to."""

    def __init__(
        self,
        path: Path,
        *,
        rows_per_block: int,
        again: Mapping[float, int] | None = None,
        documents: Sequence[str] | None = None,
    ) -> None:
        """Read what an earlier process finished; what it left half-done is removed.

        again: temperatures whose blocks have so many rows more, of the cell that is timed twice.
        documents: of the prompts, for rows that were written before documents were kept.
        """
        self._path = path
        self._rows_per_block, self._again = rows_per_block, again or {}
        self.rows: list[CellRow] = []
        if path.exists():
            found = _read(path)
            sizes: dict[tuple[int, float], int] = {}
            for row in found:
                sizes[row.block] = sizes.get(row.block, 0) + 1
            self.rows = [
                row if documents is None else _of_document(row, documents)
                for row in found
                if sizes[row.block] == self._size(row.temperature)
            ]
            atomic.write_text(path, "".join(_line(row) for row in self.rows))

    def _size(self, temperature: float) -> int:
        return self._rows_per_block + self._again.get(temperature, 0)

    def has(self, block: tuple[int, float]) -> bool:
        return any(row.block == block for row in self.rows)

    def append(self, block: Sequence[CellRow]) -> None:
        """Add a whole block and see it safely on the disk."""
        whole = self._size(block[0].temperature)
        assert len(block) == whole, "a block is appended whole"
        add_lines(self._path, "".join(_line(row) for row in block))
        self.rows.extend(block)


def _of_document(row: CellRow, documents: Sequence[str]) -> CellRow:
    return replace(row, document=row.document or documents[row.prompt])


def _line(row: CellRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _read(path: Path) -> list[CellRow]:
    """All rows; a last line that a killed process left unfinished is passed over.

    A line without rounds or category was written before they were measured: it is refused.
    """
    kept = BoundedText(
        path,
        "a row of this evaluation",
        "delete the evaluation folder (of an earlier version?), then evaluate again",
    )
    rows = []
    for place, line in read_lines(kept, unfinished=True):
        for name in ("rounds", "category"):
            if name not in line:
                raise kept.fault(f"'{name}' is missing", place)
        rows.append(kept.record(CellRow, line, place))
    return rows
