"""No draft: for text on which every draft costs more than it saves."""

from __future__ import annotations

from dataclasses import dataclass

from distillspec.speculation.draft.chain import Chain
from distillspec.speculation.draft.proposal import DraftContext


@dataclass(frozen=True)
class NoDraft:
    """Drafts nothing. A round is one forward of the target, without a draft model."""

    def slots(self, gamma: int) -> int:
        return 0

    def propose(self, context: DraftContext, gamma: int) -> Chain:
        """The empty chain, for every gamma."""
        assert gamma >= 0
        return Chain.empty(context)
