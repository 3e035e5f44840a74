"""A probe without the target: the draft's loss on held-out text that the target has written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from distillspec.measure.exact.corpus_alpha import surprise
from distillspec.models.sampling.generate import DrawnText
from distillspec.training.resume import BestResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LossResult(NamedTuple):
    """The result of `HeldOutLoss.measure`.

    Attributes:
        nats: Mean of -log q per token, nats.
        tokens: Response tokens that it is a mean over.
    """

    nats: float
    tokens: int

    @property
    def is_a_number(self) -> bool:
        """False if a distribution was not finite."""
        return not math.isnan(self.nats)

    def beats(self, best: BestResult) -> bool:
        """Whether no earlier draft was better."""
        return best.best_nats is None or self.nats < best.best_nats

    def keep(self, best: BestResult) -> None:
        """Store the loss in `best`."""
        best.best_nats = self.nats

    def metrics(self) -> dict[str, float]:
        """The columns of metrics.csv."""
        return {"probe/nats": self.nats}

    def words(self) -> str:
        """The loss as a text for a progress line."""
        return f"held-out loss {self.nats:.4f} nats over {self.tokens} tokens"


class HeldOutLoss:
    """Measures the draft's loss on the target's answers to held-out prompts.

    This is the loss of `nll` on text outside of the training data, so it rises when training begins
    to memorise its text. At temperature 1 the losses of two drafts differ by the difference of
    their KL(p || q). The loss is no estimate of alpha.
    """

    joint = False

    def __init__(self, texts: Sequence[DrawnText], *, vocab_size: int | None = None) -> None:
        assert any(text.response for text in texts), "a loss needs text"
        self._texts = texts
        self._vocab_size = vocab_size

    def measure(self, draft: PreTrainedModel) -> LossResult:
        """The loss of a draft in eval mode."""
        sums = surprise(draft, self._texts, vocab_size=self._vocab_size)
        return LossResult(sums.mean(), sum(sums.tokens))
