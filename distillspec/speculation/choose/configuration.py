"""One way to decode a round, as objects: what a method of a suite becomes."""

from __future__ import annotations

from dataclasses import dataclass

from distillspec.speculation.draft.proposal import DraftRule
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.verify.result import VerificationRule


@dataclass(frozen=True)
class Configuration:
    """One way to decode a round.

    Attributes:
        name: The method's name.
        gamma: The most tokens drafted in a round, at least 1.
        draft: How tokens are drafted.
        stop: When drafting stops before gamma tokens.
        verify: The verification rule; it must fit what `draft` proposes.
        model: The draft model, by its name in the decoder; None for the only one, or for no model.
    """

    name: str
    gamma: int
    draft: DraftRule
    stop: StopRule
    verify: VerificationRule
    model: str | None = None
