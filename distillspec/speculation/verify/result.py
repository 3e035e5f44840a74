"""What verification decides, and the protocols of verification rules."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.tree import Tree


class VerifyResult(NamedTuple):
    """What a round emits.

    Attributes:
        tokens: The drafted tokens that were kept, and then one of the target's.
    """

    tokens: list[int]

    @property
    def accepted(self) -> int:
        """Number of drafted tokens that were kept."""
        return len(self.tokens) - 1

    @property
    def next_token(self) -> int:
        """The correction, or the bonus where all drafted tokens were kept."""
        return self.tokens[-1]


class VerificationRule(Protocol):
    """Either of the rules below; it must fit what was drafted."""

    def __call__(
        self, p: Tensor, q: Tensor, drafted: Any, random_source: RandomSource, /
    ) -> VerifyResult: ...


class ChainRule(Protocol):
    """Verifies one drafted sequence."""

    def __call__(
        self, p: Tensor, q: Tensor, tokens: Tensor, random_source: RandomSource, /
    ) -> VerifyResult:
        """p [G+1, V], q [G, V], drafted tokens long [G] -> result."""
        ...


class TreeRule(Protocol):
    """Verifies a drafted tree."""

    def __call__(
        self, p: Tensor, q: Tensor, tree: Tree, random_source: RandomSource, /
    ) -> VerifyResult:
        """p [N+1, V] by context, q by the tree's rows, the drafted tree -> result."""
        ...
