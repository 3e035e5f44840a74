"""No draft: for text on which every draft costs more than it saves."""

from __future__ import annotations

from dataclasses import dataclass

from distillspec.speculation.draft.chain import Chain
from distillspec.speculation.draft.proposal import DraftContext


@dataclass(frozen=True)
class NoDraft:
    """A round is one step of the target; the draft models rest."""

    def slots(self, gamma: int) -> int:
        return 0

    def propose(self, basis: DraftContext, gamma: int) -> Chain:
        """The empty chain, whatever gamma is."""
        assert gamma >= 0
        return Chain.empty(basis)
