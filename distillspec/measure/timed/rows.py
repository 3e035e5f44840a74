"""rows.jsonl: one line per prompt and cell with raw counts and seconds.

A block is everything that was timed for one prompt at one temperature: the baseline and every cell,
interleaved. A block is appended at once, so its rows come from one process, and an interrupted
evaluation goes on with the first unfinished block.
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
    """A round that was not cut by the length limit.

    Attributes:
        context: Tokens of prompt and output before the first drafted token.
        drafted: Drafted tokens.
        accepted: Drafted tokens that were accepted.
    """

    context: int
    drafted: int
    accepted: int


@dataclass(frozen=True)
class CellRow:
    """One decoded text.

    Attributes:
        prompt: Number of the prompt.
        draft, method, gamma: The cell; None for autoregressive decoding.
        repeat: How often this text was timed before.
        place: Position within the block.
        run: The process that timed it.
        seconds: Decoding time, without the prefill.
        fates: One letter per token: accepted, corrected, bonus, plain.
        counts: As in `speculation.records`.
        target_busy_seconds, draft_busy_seconds: Work of each side, if both work at the same time.
        rounds: Rounds that drafted and were not cut.
        category: Category of the prompt, if it has one.
        document: Document of the prompt; None in rows of an earlier version.
        again: Whether the cell is timed a second time.
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
        """The document; in rows of an earlier version the prompt."""
        return f"prompt {self.prompt}" if self.document is None else self.document

    @property
    def block(self) -> tuple[int, float]:
        return self.prompt, self.temperature


def letters(generation: Generation) -> str:
    """The fates of a text, one letter per token."""
    return "".join(_LETTERS[status] for status in generation.statuses)


def drafted_at(generation: Generation, prompt_tokens: int) -> list[DraftedAt]:
    """The rounds of a text that drafted, with their context, without cut rounds."""
    drafted, context = [], prompt_tokens
    for record in generation.rounds:
        if record.drafted and not record.cut:
            drafted.append(DraftedAt(context, record.drafted, record.accepted))
        # Cut rounds lengthen the context, too.
        context += record.emitted
    return drafted


class RowLog:
    """The rows of finished blocks, and their file."""

    def __init__(
        self,
        path: Path,
        *,
        rows_per_block: int,
        again: Mapping[float, int] | None = None,
        documents: Sequence[str] | None = None,
    ) -> None:
        """Read finished blocks of an earlier process, and remove an unfinished block.

        Args:
            path: rows.jsonl.
            rows_per_block: Rows of each block.
            again: Additional rows per block by temperature, for the cell that is timed twice.
            documents: Documents of the prompts, for rows of an earlier version.
        """
        self._path = path
        self._rows_per_block, self._again = rows_per_block, again or {}
        self.rows: list[CellRow] = []
        if path.exists():
            stored = _read(path)
            # A block with fewer rows was not finished by its process.
            sizes: dict[tuple[int, float], int] = {}
            for row in stored:
                sizes[row.block] = sizes.get(row.block, 0) + 1
            self.rows = [
                row if documents is None else _of_document(row, documents)
                for row in stored
                if sizes[row.block] == self._size(row.temperature)
            ]
            # Written again without unfinished blocks, so that new rows follow complete ones.
            atomic.write_text(path, "".join(_line(row) for row in self.rows))

    def _size(self, temperature: float) -> int:
        return self._rows_per_block + self._again.get(temperature, 0)

    def has(self, block: tuple[int, float]) -> bool:
        return any(row.block == block for row in self.rows)

    def append(self, block: Sequence[CellRow]) -> None:
        """Add all rows of a block, and wait until they are on the disk."""
        size = self._size(block[0].temperature)
        assert len(block) == size, "all rows of a block are appended at once"
        add_lines(self._path, "".join(_line(row) for row in block))
        self.rows.extend(block)


def _of_document(row: CellRow, documents: Sequence[str]) -> CellRow:
    return replace(row, document=row.document or documents[row.prompt])


def _line(row: CellRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _read(path: Path) -> list[CellRow]:
    """All rows, without an unfinished last line of a killed process.

    Raises:
        DistillSpecError: A row of an earlier version, without rounds or category.
    """
    file = BoundedText(
        path,
        "a row of this evaluation",
        "delete the evaluation folder (of an earlier version?), then evaluate again",
    )
    rows = []
    for where, line in read_lines(file, unfinished=True):
        # Their defaults would hide that an earlier version wrote the row.
        for name in ("rounds", "category"):
            if name not in line:
                raise file.fault(f"'{name}' is missing", where)
        rows.append(file.record(CellRow, line, where))
    return rows
