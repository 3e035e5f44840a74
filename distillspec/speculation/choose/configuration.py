"""One way to decode a round, as objects: what a method of a suite becomes."""

from __future__ import annotations

from dataclasses import dataclass

from distillspec.speculation.draft.proposal import DraftRule
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.verify.result import Rule


@dataclass(frozen=True)
class Configuration:
    """gamma: the most tokens drafted in a round, >= 1.

    model: which of a decoder's draft models it drafts with; None: the only one, or none at all.
    """

    name: str
    gamma: int
    draft: DraftRule
    stop: StopRule
    verify: Rule
    model: str | None = None
