"""audit.jsonl: a line per round of what was decoded, for suites and programs that ask for it."""

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
_LONGEST_LINE = 2**20
_UNFINISHED = re.compile(rb'\{"prompt": \d+, "prompt_key": ')  # of a round that a kill cut short


@dataclass(frozen=True)
class AuditedRound:
    """One round. draft, method, gamma: of the cell; arm: name@gamma that decoded this round.

    prompt: its number; repeat: how often this was decoded before; round: from 0 within the text.
    drafted, accepted, emitted, draft_steps, cut: as in `speculation.records`. fate: of the last
    token emitted: accepted, corrected, bonus, plain. entropies: of the draft's untempered
    distribution at each position drafted, in nats. Milliseconds of drafting, of the target with
    verification, and of the rest.
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
    """What a text was decoded as: what its rounds have in common."""

    prompt: int
    prompt_key: str
    temperature: float
    draft: str
    method: str
    gamma: int
    repeat: int = 0

    def line(self, number: int, record: RoundRecord, fate: TokenStatus) -> AuditedRound:
        """Of its round `number`, the last token of which had this fate."""
        audit = record.audit
        assert audit is not None, "the decoder was told to audit"
        return AuditedRound(
            **asdict(self),
            round=number,
            arm=audit.arm,
            drafted=record.drafted,
            accepted=record.accepted,
            emitted=record.emitted,
            fate=fate.name.lower(),
            entropies=[round(entropy, 5) for entropy in audit.entropies],
            draft_steps=record.draft_steps,
            cut=record.cut,
            draft_ms=round(1e3 * audit.draft_seconds, 4),
            verify_ms=round(1e3 * audit.verify_seconds, 4),
            other_ms=round(1e3 * audit.other_seconds, 4),
        )

    def lines(
        self, records: Sequence[RoundRecord], fates: Sequence[TokenStatus]
    ) -> list[AuditedRound]:
        """Of its rounds that were audited; fates: of all its tokens."""
        found, end = [], 0
        for number, record in enumerate(records):
            end += record.emitted
            if record.audit is not None:  # a decoder that is no loop of rounds has none
                found.append(self.line(number, record, fates[end - 1]))
        return found


def append(path: Path, rounds: Iterable[AuditedRound]) -> None:
    """Add these rounds and see them safely on the disk; all of them, or none.

    A last line that was left unfinished is removed first.

    Raises:
        DistillSpecError: The file cannot be written, or it holds anything but an audit.
    """
    _check_audit(path)
    with appending(path) as add:
        add([vars(one) for one in rounds])


def _check_audit(path: Path) -> None:
    """Refuse a file of the user's whose first line is no audited round."""
    fix = "name a file that does not exist yet, or one that an audit was written to before"
    check_regular(path, "the file of the audit", fix)
    try:
        with path.open("rb") as handle:
            first = handle.readline(_LONGEST_LINE)
    except OSError:  # there is none; or writing will say what is wrong
        return
    if not first or (not first.endswith(b"\n") and _UNFINISHED.match(first)):
        return
    try:
        typed(AuditedRound, json.loads(first))
    except (ValueError, RecursionError) as error:
        raise DistillSpecError(
            "rounds would be added to this file, and its first line is no round of an audit",
            where=str(path),
            fix=fix,
        ) from error


def read(path: Path) -> list[AuditedRound]:
    """All rounds, none where nothing was audited; a last line left unfinished is passed over."""
    if not path.exists():
        return []
    kept = BoundedText(
        path,
        "a round of this audit",
        "move that file away: the report is then drawn without it",
    )
    lines = read_lines(kept, unfinished=True)
    return [kept.record(AuditedRound, line, place) for place, line in lines]


def keep_blocks(path: Path, blocks: set[tuple[int, float]]) -> None:
    """Leave the rounds of these blocks alone: an interrupted block is decoded again."""
    found = read(path)
    if path.exists():
        kept = (one for one in found if one.block in blocks)
        atomic.write_text(
            path, "".join(json.dumps(vars(one), ensure_ascii=False) + "\n" for one in kept)
        )
