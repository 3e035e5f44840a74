"""What happened, in counts: sums that add over rounds, prompts and ranks. Rates are formed last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import zip_longest
from typing import NamedTuple


class TokenStatus(IntEnum):
    """How a token came to be emitted."""

    ACCEPTED = 0  # drafted, and kept by the target
    CORRECTED = 1  # the target's, in place of a drafted one
    BONUS = 2  # the target's, after a block that was kept whole
    PLAIN = 3  # the target's, nothing was drafted


class RoundAudit(NamedTuple):
    """What a round leaves beside its counts where it is audited.

    arm: name@gamma of the configuration that decoded it. entropies: of the draft's untempered
    distribution where each drafted token was drawn, in nats, by position; of several sequences
    their mean; empty where the draft has no distribution. draft_seconds: drafting, its stop rule
    included. verify_seconds: the target's forward, verification, and both caches brought to what
    was kept. other_seconds: choosing and learning.
    """

    arm: str
    entropies: tuple[float, ...]
    draft_seconds: float
    verify_seconds: float
    other_seconds: float


class RoundRecord(NamedTuple):
    """One forward of the target.

    accepted: drafted tokens that verification kept, whether or not they were then cut off.
    emitted: tokens that joined the output. draft_steps: forwards of drafts.
    cut: end-of-text shortened the block, or the length limit or a model's cache left no room for a
    full one. Such a round is left out of every rate: near the limit only short blocks would be seen
    whole.
    audit: None where nobody asked for it.
    """

    drafted: int
    accepted: int
    emitted: int
    draft_steps: int
    cut: bool
    audit: RoundAudit | None = None


class Round(NamedTuple):
    """What one round added to the output: tokens and fates [emitted], and its record."""

    tokens: list[int]
    fates: list[TokenStatus]
    record: RoundRecord


@dataclass(frozen=True)
class Counts:
    """Sums over rounds; `a + b` are the counts of both. Rates are nan where nothing was counted.

    tokens, target_forwards: of all rounds. All others: of the rounds that were not cut.
    accepted_at[i]: rounds that kept at least i + 1 drafted tokens. drafts: rounds that drafted.
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
        rounds = list(rounds)
        whole = [record for record in rounds if not record.cut]
        longest = max((record.drafted for record in whole), default=0)
        return cls(
            tokens=sum(record.emitted for record in rounds),
            target_forwards=len(rounds),
            verifications=len(whole),
            emitted=sum(record.emitted for record in whole),
            drafts=sum(record.drafted > 0 for record in whole),
            drafted=sum(record.drafted for record in whole),
            accepted=sum(record.accepted for record in whole),
            draft_steps=sum(record.draft_steps for record in whole),
            accepted_at=tuple(
                sum(record.accepted > position for record in whole) for position in range(longest)
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
            accepted_at=tuple(mine + theirs for mine, theirs in at),
        )

    def block_efficiency(self) -> float:
        """tau: tokens emitted per target forward, correction or bonus included, in [1, gamma+1]."""
        return _ratio(self.emitted, self.verifications)

    def draft_acceptance(self) -> float:
        """Accepted drafted tokens per drafted token, in [0, 1]."""
        return _ratio(self.accepted, self.drafted)

    def acceptance_at(self, position: int) -> float:
        """Drafts of which the token at `position` (from 0) was kept, per draft made, in [0, 1]."""
        kept = self.accepted_at[position] if position < len(self.accepted_at) else 0
        return _ratio(kept, self.drafts)

    def draft_steps_per_round(self) -> float:
        """Forwards of the draft per forward of the target."""
        return _ratio(self.draft_steps, self.verifications)

    def drafted_per_round(self) -> float:
        """Tokens drawn from drafts per forward of the target."""
        return _ratio(self.drafted, self.verifications)


class Busy(NamedTuple):
    """Seconds that each side of a parallel decoding worked; over decode_seconds, its share."""

    target_seconds: float
    draft_seconds: float


@dataclass(frozen=True)
class Generation:
    """One decoded text. finished: it ended with an end token (which `tokens` includes).

    prefill_seconds: both models over the prompt but its last token. decode_seconds: all after.
    busy: where both work at the same time.
    """

    tokens: list[int]
    fates: list[TokenStatus]
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
            fates=[fate for emitted in rounds for fate in emitted.fates],
            rounds=[emitted.record for emitted in rounds],
            prefill_seconds=prefill_seconds,
            decode_seconds=decode_seconds,
            finished=bool(tokens) and tokens[-1] in eos_token_ids,
            busy=busy,
        )

    def counts(self) -> Counts:
        return Counts.of(self.rounds)


def _ratio(count: int, of: int) -> float:
    return count / of if of else float("nan")
