"""When to stop drafting before gamma tokens are made."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distillspec.speculation.sampling import SamplingPolicy


class StopRule:
    """Never stops early; a rule overrides what it needs.

    A rule may look at the context and at a token that was drawn. But a token once drawn is always
    submitted to verification, else the output is biased.
    """

    reads_entropy: bool = False  # callers that know the entropy then pass it to `stops`

    def begins(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> None:
        """See the draft's logits [V] for a chain's first token, which is always drawn.

        Args: As of `stops`.
        """

    def stops(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> bool:
        """Whether to stop before a further token is drawn.

        Args:
            logits: The draft's logits for that token, shape [V].
            policy: Gives the untempered distribution.
            entropy: Entropy of the untempered distribution in nats, where it is known.
        """
        return False

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        """Whether to stop after this token (long []), drawn from the draft's logits [V]."""
        return False

    def state(self) -> list[float]:
        """What the rule has learnt, for `restore` in a later prompt or process."""
        return []

    def restore(self, state: Sequence[float]) -> None:
        """Continue from what `state` returned."""

    def learn(self, length: int, accepted: int, gamma: int) -> None:
        """Learn from a round.

        Args:
            length: Tokens of the longest drafted sequence.
            accepted: Drafted tokens that verification kept.
            gamma: The most tokens that the round could draft.
        """


class FixedLength(StopRule):
    """Drafts gamma tokens in every round, and never waits for the device."""
