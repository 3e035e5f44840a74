"""How well the draft foresees the target's text: all that can be known of it without the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from distillspec.measure.exact.corpus_alpha import surprise
from distillspec.models.sampling.generate import DrawnText
from distillspec.training.resume import Position

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LossResult(NamedTuple):
    """nats: mean of -log q over the `tokens` tokens of the texts."""

    nats: float
    tokens: int

    @property
    def is_a_number(self) -> bool:
        """False where a distribution was not finite."""
        return not math.isnan(self.nats)

    def beats(self, best: Position) -> bool:
        """Whether no earlier draft was better."""
        return best.best_nats is None or self.nats < best.best_nats

    def keep(self, best: Position) -> None:
        best.best_nats = self.nats

    def metrics(self) -> dict[str, float]:
        return {"probe/nats": self.nats}

    def words(self) -> str:
        return f"held-out loss {self.nats:.4f} nats over {self.tokens} tokens"


class HeldOutLoss:
    """Answers of the target to held-out prompts, which every measurement reads again.

    It is the loss of `nll` on text that is not trained on, so it tells when training has begun to
    learn its text by heart. At temperature 1 two drafts differ in it by their KL(p || q); alpha it
    is not.
    """

    joint = False

    def __init__(self, texts: Sequence[DrawnText], *, vocab_size: int | None = None) -> None:
        assert any(text.response for text in texts), "a loss needs text"
        self._texts = texts
        self._vocab_size = vocab_size

    def measure(self, draft: PreTrainedModel) -> LossResult:
        sums = surprise(draft, self._texts, vocab_size=self._vocab_size)
        return LossResult(sums.mean(), sum(sums.tokens))
