"""What the rounds of a method take, from isolated step times: for predictions and stop rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class BlockTime(NamedTuple):
    """A round whose block has the full length of its gamma.

    Attributes:
        steps: Forwards of the draft; 0 for a draft without a model.
        drafted: Drafted tokens.
        drafting: Time of the draft, which has one token to read before it.
        verifying: Time of all else: the target's forward, verification, and the engine's own work.
    """

    steps: int
    drafted: int
    drafting: float
    verifying: float


@dataclass(frozen=True)
class RoundTimes:
    """Times of the rounds of one method with one draft, in one-token target steps.

    Attributes:
        blocks: By gamma, at least one.
        unread: What a round takes more if the block before it was kept to its end. The draft then
            has two tokens to read: its last one, and the target's bonus.
    """

    blocks: Mapping[int, BlockTime]
    unread: float = 0.0

    @classmethod
    def of_chains(
        cls, draft_to_target_time: float, verify_times: Mapping[int, float]
    ) -> RoundTimes:
        """Chains whose draft steps all take c, verified in v by gamma."""
        return cls(
            {
                gamma: BlockTime(gamma, gamma, gamma * draft_to_target_time, verify_time)
                for gamma, verify_time in verify_times.items()
            }
        )

    def at(self, gamma: int, whole: float = 0.0) -> float:
        """Time of a round with a full block of gamma.

        Args:
            gamma: One of the timed block sizes.
            whole: Share of the rounds that keep their block to its end, in [0, 1].
        """
        block = self.blocks[gamma]
        return block.drafting + block.verifying + whole * self.unread

    def between(self, steps: float, drafted: float, whole: float = 0.0) -> float:
        """Time of a round for mean numbers of draft steps and drafted tokens.

        Drafting and verification are linear between the blocks that were timed, and go on with the
        last slope beyond them. Without a draft they take 0 and 1.
        """
        drafting = {0: 0.0, **{block.steps: block.drafting for block in self.blocks.values()}}
        verifying = {0: 1.0, **{block.drafted: block.verifying for block in self.blocks.values()}}
        return _at(drafting, steps) + _at(verifying, drafted) + whole * self.unread


def _at(known: Mapping[int, float], number: float) -> float:
    """The value at `number`, linear between known numbers and beyond the last; nan for nan."""
    if math.isnan(number):
        return math.nan
    sizes = sorted(known)
    if len(sizes) == 1:
        return known[sizes[0]]
    above = next((size for size in sizes[1:] if size >= number), sizes[-1])
    below = sizes[sizes.index(above) - 1]
    share = (number - below) / (above - below)
    return (1.0 - share) * known[below] + share * known[above]
