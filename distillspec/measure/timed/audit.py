"""audit.jsonl: one line per decoding round, for suites and programs that ask for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distillspec.errors import DistillSpecError
from distillspec.runtime import atomic
from distillspec.runtime.journal import appending
from distillspec.runtime.plain_files import BoundedText, check_regular, read_lines
from distillspec.runtime.typed import typed
from distillspec.speculation.records import RoundRecord, TokenStatus

AUDIT = "audit.jsonl"
# Bytes that are read to recognise an audit.
_LONGEST_LINE = 2**20
# An unfinished round of a killed process.
_UNFINISHED = re.compile(rb'\{"prompt": \d+, "prompt_key": ')


@dataclass(frozen=True)
class AuditedRound:
    """One decoding round.

    Attributes:
        prompt: Number of the prompt.
        draft, method, gamma: The cell.
        repeat: How often this text was decoded before.
        round: Number within the text, from 0.
        arm: name@gamma that decoded this round.
        drafted, accepted, emitted, draft_steps, cut: As in `speculation.records`.
        fate: Status of the last emitted token: accepted, corrected, bonus, plain.
        entropies: Entropy of the draft's distribution, without temperature, at each drafted
            position, in nats.
        draft_ms, verify_ms, other_ms: Milliseconds of drafting, of the target with verification,
            and of the rest.
    """

    prompt: int
    prompt_key: str
    temperature: float
    draft: str
    method: str
    gamma: int
    repeat: int
    round: int
    arm: str
    drafted: int
    accepted: int
    emitted: int
    fate: str
    entropies: list[float]
    draft_steps: int
    cut: bool
    draft_ms: float
    verify_ms: float
    other_ms: float

    @property
    def block(self) -> tuple[int, float]:
        return self.prompt, self.temperature


@dataclass(frozen=True)
class Decoded:
    """What all rounds of a decoded text have in common."""

    prompt: int
    prompt_key: str
    temperature: float
    draft: str
    method: str
    gamma: int
    repeat: int = 0

    def line(self, number: int, record: RoundRecord, status: TokenStatus) -> AuditedRound:
        """The record of round `number`, whose last token had this status."""
        audit = record.audit
        assert audit is not None, "the decoder audits"
        return AuditedRound(
            **asdict(self),
            round=number,
            arm=audit.arm,
            drafted=record.drafted,
            accepted=record.accepted,
            emitted=record.emitted,
            fate=status.name.lower(),
            entropies=[round(entropy, 5) for entropy in audit.entropies],
            draft_steps=record.draft_steps,
            cut=record.cut,
            draft_ms=round(1e3 * audit.draft_seconds, 4),
            verify_ms=round(1e3 * audit.verify_seconds, 4),
            other_ms=round(1e3 * audit.other_seconds, 4),
        )

    def lines(
        self, records: Sequence[RoundRecord], statuses: Sequence[TokenStatus]
    ) -> list[AuditedRound]:
        """The records of the audited rounds.

        Args:
            records: All rounds of the text.
            statuses: The status of each of its tokens.
        """
        audited, end = [], 0
        for number, record in enumerate(records):
            # The round's last token is at `end - 1`.
            end += record.emitted
            if record.audit is not None:  # a decoder without a loop of rounds has no audit
                audited.append(self.line(number, record, statuses[end - 1]))
        return audited


def append(path: Path, rounds: Iterable[AuditedRound]) -> None:
    """Add all rounds or none, and wait until they are on the disk.

    An unfinished last line is removed first.

    Raises:
        DistillSpecError: The file cannot be written, or it is not an audit.
    """
    _check_audit(path)
    with appending(path) as add:
        add([vars(audited) for audited in rounds])


def _check_audit(path: Path) -> None:
    """Raise if the first line of the file is not an audited round."""
    fix = "give a file that does not exist yet, or the file of an earlier audit"
    check_regular(path, "the file of the audit", fix)
    try:
        with path.open("rb") as handle:
            first = handle.readline(_LONGEST_LINE)
    except OSError:  # no file yet, or writing will report what is wrong
        return
    # An unfinished first round is of a killed process; `appending` removes it.
    if not first or (not first.endswith(b"\n") and _UNFINISHED.match(first)):
        return
    try:
        typed(AuditedRound, json.loads(first))
    except (ValueError, RecursionError) as error:
        raise DistillSpecError(
            "rounds would be added to this file, but its first line is not a round of an audit",
            where=str(path),
            fix=fix,
        ) from error


def read(path: Path) -> list[AuditedRound]:
    """All rounds, without an unfinished last line; empty without an audit."""
    if not path.exists():
        return []
    file = BoundedText(
        path,
        "a round of this audit",
        "move that file away: the report is then written without it",
    )
    lines = read_lines(file, unfinished=True)
    return [file.record(AuditedRound, line, where) for where, line in lines]


def keep_blocks(path: Path, blocks: set[tuple[int, float]]) -> None:
    """Remove the rounds of all other blocks: an interrupted block is decoded again."""
    rounds = read(path)
    if path.exists():
        remaining = (audited for audited in rounds if audited.block in blocks)
        atomic.write_text(
            path,
            "".join(json.dumps(vars(audited), ensure_ascii=False) + "\n" for audited in remaining),
        )
