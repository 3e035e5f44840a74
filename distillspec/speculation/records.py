"""What happened, in counts: sums that add over rounds, prompts and ranks. Rates come last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import zip_longest
from typing import NamedTuple


class TokenStatus(IntEnum):
    """How a token came to be emitted."""

    ACCEPTED = 0  # drafted, and kept by verification
    CORRECTED = 1  # drawn from the target in place of a rejected token
    BONUS = 2  # drawn from the target after a fully accepted block
    PLAIN = 3  # drawn from the target in a round without a draft


class RoundAudit(NamedTuple):
    """What an audited round records in addition to its counts.

    Attributes:
        arm: name@gamma of the configuration that decoded it.
        entropies: For each position that was drawn, entropy of the draft's untempered distribution
            in nats; the mean over several sequences. Empty where the draft has no distribution.
        draft_seconds: Drafting, with its stop rule.
        verify_seconds: The target's forward, verification, and the update of both caches.
        other_seconds: Choosing and learning.
    """

    arm: str
    entropies: tuple[float, ...]
    draft_seconds: float
    verify_seconds: float
    other_seconds: float


class RoundRecord(NamedTuple):
    """One forward of the target.

    Attributes:
        drafted: Tokens drawn from the draft.
        accepted: Drafted tokens that verification kept, also those that were then cut off.
        emitted: Tokens that joined the output.
        draft_steps: Forwards of draft models.
        cut: Whether an end of text shortened the block, or the length limit or a cache left no room
            for a full block. Rates leave such rounds out: near the limit only short blocks would be
            seen in full.
        audit: Only where rounds are audited.
    """

    drafted: int
    accepted: int
    emitted: int
    draft_steps: int
    cut: bool
    audit: RoundAudit | None = None


class Round(NamedTuple):
    """What one round added to the output.

    Attributes:
        tokens: The emitted tokens.
        statuses: The status of each of them.
        record: The counts of the round.
    """

    tokens: list[int]
    statuses: list[TokenStatus]
    record: RoundRecord


@dataclass(frozen=True)
class Counts:
    """Sums over rounds; `a + b` are the counts of both. Rates are nan where nothing was counted.

    Attributes:
        tokens: Emitted tokens of all rounds.
        target_forwards: All rounds.
        verifications: Rounds that were not cut, as in all counts below.
        emitted: Emitted tokens.
        drafts: Rounds that drafted.
        drafted: Drafted tokens.
        accepted: Drafted tokens that were kept.
        draft_steps: Forwards of draft models.
        accepted_at: At index i, rounds that kept at least i + 1 drafted tokens.
    """

    tokens: int = 0
    target_forwards: int = 0
    verifications: int = 0
    emitted: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    draft_steps: int = 0
    accepted_at: tuple[int, ...] = ()

    @classmethod
    def of(cls, rounds: Iterable[RoundRecord]) -> Counts:
        """The counts of these rounds."""
        rounds = list(rounds)
        uncut = [record for record in rounds if not record.cut]
        longest = max((record.drafted for record in uncut), default=0)
        return cls(
            tokens=sum(record.emitted for record in rounds),
            target_forwards=len(rounds),
            verifications=len(uncut),
            emitted=sum(record.emitted for record in uncut),
            drafts=sum(record.drafted > 0 for record in uncut),
            drafted=sum(record.drafted for record in uncut),
            accepted=sum(record.accepted for record in uncut),
            draft_steps=sum(record.draft_steps for record in uncut),
            accepted_at=tuple(
                sum(record.accepted > position for record in uncut) for position in range(longest)
            ),
        )

    def __add__(self, other: Counts) -> Counts:
        at = zip_longest(self.accepted_at, other.accepted_at, fillvalue=0)
        return Counts(
            tokens=self.tokens + other.tokens,
            target_forwards=self.target_forwards + other.target_forwards,
            verifications=self.verifications + other.verifications,
            emitted=self.emitted + other.emitted,
            drafts=self.drafts + other.drafts,
            drafted=self.drafted + other.drafted,
            accepted=self.accepted + other.accepted,
            draft_steps=self.draft_steps + other.draft_steps,
            accepted_at=tuple(first + second for first, second in at),
        )

    def block_efficiency(self) -> float:
        """tau: tokens emitted per target forward, with correction or bonus, in [1, gamma+1]."""
        return _ratio(self.emitted, self.verifications)

    def draft_acceptance(self) -> float:
        """Accepted drafted tokens per drafted token, in [0, 1]."""
        return _ratio(self.accepted, self.drafted)

    def acceptance_at(self, position: int) -> float:
        """Rounds that kept the token at `position` (from 0), per round that drafted, in [0, 1]."""
        accepted = self.accepted_at[position] if position < len(self.accepted_at) else 0
        return _ratio(accepted, self.drafts)

    def kept_at_least(self, length: int) -> float:
        """Share of all complete rounds that kept `length` >= 1 drafted tokens or more."""
        kept = self.accepted_at[length - 1] if length <= len(self.accepted_at) else 0
        return _ratio(kept, self.verifications)

    def draft_steps_per_round(self) -> float:
        """Forwards of the draft per forward of the target."""
        return _ratio(self.draft_steps, self.verifications)

    def drafted_per_round(self) -> float:
        """Tokens drawn from drafts per forward of the target."""
        return _ratio(self.drafted, self.verifications)


class Busy(NamedTuple):
    """Working time of each side of a parallel decoding; over decode_seconds it is a share.

    Attributes:
        target_seconds: Time in which the target worked.
        draft_seconds: Time in which the draft worked.
    """

    target_seconds: float
    draft_seconds: float


@dataclass(frozen=True)
class Generation:
    """One decoded text.

    Attributes:
        tokens: The emitted tokens, with the end token if there is one.
        statuses: The status of each token.
        rounds: The counts of each round.
        prefill_seconds: Time of both models over the prompt but its last token.
        decode_seconds: Time of everything after it.
        finished: Whether the text ended with an end token.
        busy: Only where both models work at the same time.
    """

    tokens: list[int]
    statuses: list[TokenStatus]
    rounds: list[RoundRecord]
    prefill_seconds: float
    decode_seconds: float
    finished: bool
    busy: Busy | None = None

    @classmethod
    def of_rounds(
        cls,
        rounds: Iterable[Round],
        eos_token_ids: frozenset[int],
        *,
        prefill_seconds: float,
        decode_seconds: float,
        busy: Busy | None = None,
    ) -> Generation:
        """The text that these rounds made."""
        rounds = list(rounds)
        tokens = [token for emitted in rounds for token in emitted.tokens]
        return cls(
            tokens=tokens,
            statuses=[status for emitted in rounds for status in emitted.statuses],
            rounds=[emitted.record for emitted in rounds],
            prefill_seconds=prefill_seconds,
            decode_seconds=decode_seconds,
            finished=bool(tokens) and tokens[-1] in eos_token_ids,
            busy=busy,
        )

    def counts(self) -> Counts:
        """The counts of all rounds."""
        return Counts.of(self.rounds)


def _ratio(count: int, of: int) -> float:
    return count / of if of else float("nan")
