"""What verification decides, and the protocol of a rule."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from distillspec.speculation.chance import Chance


class Verdict(NamedTuple):
    """tokens: what the round emits, drafted tokens that were kept and then one of the target's."""

    tokens: list[int]

    @property
    def accepted(self) -> int:
        """Drafted tokens kept."""
        return len(self.tokens) - 1

    @property
    def next_token(self) -> int:
        """The correction, or the bonus where all were kept."""
        return self.tokens[-1]


class VerifyRule(Protocol):
    def __call__(self, p: Tensor, q: Tensor, tokens: Tensor, chance: Chance, /) -> Verdict:
        """p [G+1, V], q [G, V], drafted tokens long [G] -> verdict."""
        ...
