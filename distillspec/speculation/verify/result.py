"""What verification decides, and the protocols of rules."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree


class VerifyResult(NamedTuple):
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


class Rule(Protocol):
    """Any rule: of the two below, the one that fits what was drafted."""

    def __call__(
        self, p: Tensor, q: Tensor, drafted: Any, chance: RandomSource, /
    ) -> VerifyResult: ...


class VerifyRule(Protocol):
    def __call__(
        self, p: Tensor, q: Tensor, tokens: Tensor, chance: RandomSource, /
    ) -> VerifyResult:
        """p [G+1, V], q [G, V], drafted tokens long [G] -> verdict."""
        ...


class TreeRule(Protocol):
    def __call__(self, p: Tensor, q: Tensor, tree: Tree, chance: RandomSource, /) -> VerifyResult:
        """p [N+1, V] by context, q by the tree's rows, the drafted tree -> verdict."""
        ...
