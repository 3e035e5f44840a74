"""The probe: alpha and expected tau of the draft on text of the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from distillspec.corpus.sources.prompts import Prompt
from distillspec.measure.exact.corpus_alpha import readings
from distillspec.measure.exact.expected_rounds import expected_counts
from distillspec.models.sampling.generate import DrawnText, generate
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.recipe import distill
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.text.numbers import known
from distillspec.training.resume import BestResult
from distillspec.training.shared_random import SharedRandomSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ProbeResult(NamedTuple):
    """The result of `AcceptanceProbe.measure`.

    Attributes:
        alpha: Mean acceptance rate over `tokens`, in [0, 1]; NaN without tokens.
        tokens: Tokens of the target's text.
        tau: Expected tokens per round on this text; NaN if no text has room for a round.
        gamma: Drafted tokens per round.
    """

    alpha: float
    tokens: int
    tau: float
    gamma: int

    @property
    def is_a_number(self) -> bool:
        """False if a distribution was not finite."""
        # NaN without tokens is no fault: there was nothing to measure.
        return not math.isnan(self.alpha) or not self.tokens

    def beats(self, best: BestResult) -> bool:
        """Whether no earlier draft was better."""
        return not self.alpha <= best.best_alpha  # also true if the best alpha is still NaN

    def keep(self, best: BestResult) -> None:
        """Store alpha in `best`."""
        best.best_alpha = self.alpha

    def metrics(self) -> dict[str, float]:
        """The columns of metrics.csv."""
        return {
            "probe/alpha": self.alpha,
            "probe/tau_tokens": self.tau,
        }

    def words(self) -> str:
        """The result as a text for a progress line."""
        return (
            f"alpha {known(self.alpha, '.4f')} over {self.tokens} tokens, "
            f"expected tau {known(self.tau, '.3f', ' tokens')} at gamma {self.gamma}"
        )


class AcceptanceProbe:
    """Measures drafts on held-out prompts and the target's answers to them.

    The first measurement draws the answers. All measurements use the same text, also after a
    resumption, so their results differ by the draft only. A probe can measure several drafts.

    Attributes:
        plan: The recipe's section.
        joint: Whether every process must measure, at the same time.
    """

    def __init__(
        self,
        target: FrozenTarget,
        prompts: Sequence[Prompt],
        plan: distill.ProbeConfig,
        *,
        temperature: float,
        eos_token_ids: frozenset[int],
        pad_token: int,
        seed: int,
        vocab_size: int | None = None,
        joint: bool = False,
    ) -> None:
        """Prepare a probe.

        Args:
            target: Writes the answers and reads them with the draft.
            prompts: Held-out prompts, of which the first `plan.prompts` are used.
            plan: The recipe's section.
            temperature: Of both models.
            eos_token_ids: End an answer.
            pad_token: Fills batches.
            seed: The recipe's seed.
            vocab_size: Tokens that both models share; None if they share all.
            joint: Whether the target is split over processes, so that all must measure together.
        """
        assert prompts, "a probe needs prompts"
        self.plan = plan
        self._target = target
        self._prompts = [prompt.tokens for prompt in prompts[: plan.prompts]]
        self._policy = SamplingPolicy(temperature=temperature)
        self._eos_token_ids = eos_token_ids
        self._pad_token = pad_token
        self._seed = seed
        self._vocab_size = vocab_size
        self.joint = joint
        self._texts: list[DrawnText] | None = None

    @torch.no_grad()
    def measure(self, draft: PreTrainedModel) -> ProbeResult:
        """Alpha and expected tau of a draft in eval mode, on the device of the target."""
        # All drafts are measured on the same text, so it is drawn once.
        if self._texts is None:
            self._texts = self._drawn()
        read = readings(
            self._target.model, draft, self._texts, self._policy, vocab_size=self._vocab_size
        )
        overlap = [alpha for text in read for alpha in text.overlap]
        counts = [expected_counts(text.keep_probability, self.plan.gamma) for text in read]
        rounds = sum(text.verifications for text in counts)
        return ProbeResult(
            sum(overlap) / len(overlap) if overlap else math.nan,
            len(overlap),
            sum(text.emitted for text in counts) / rounds if rounds else math.nan,
            self.plan.gamma,
        )

    def _drawn(self) -> list[DrawnText]:
        device = self._target.model.device
        responses = generate(
            self._target.model,
            [torch.tensor(prompt) for prompt in self._prompts],
            max_new_tokens=self.plan.max_new_tokens,
            policy=self._policy,
            random_source=self._random_source(derive_seed(self._seed, "probe/text"), device),
            eos_token_ids=self._eos_token_ids,
            pad_token=self._pad_token,
            vocab_size=self._vocab_size,
        )
        pairs = zip(self._prompts, responses, strict=True)
        return [DrawnText(tuple(prompt), tuple(text.tolist())) for prompt, text in pairs]

    def _random_source(self, seed: int, device: torch.device) -> RandomSource:
        source = GeneratorSource(torch.Generator(device).manual_seed(seed))
        return SharedRandomSource(source) if self.joint else source
