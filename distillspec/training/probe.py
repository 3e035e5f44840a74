"""How good the draft is right now: alpha on the target's own text, and a really decoded tau."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from distillspec.corpus.sources.prompts import Prompt
from distillspec.measure.exact.corpus_alpha import acceptance
from distillspec.models.runners.compiled import make_runner
from distillspec.models.runners.tree_batch import eager_runner
from distillspec.models.sampling.generate import DrawnText, generate
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.recipe import distill
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.records import Counts
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.token import verify_token
from distillspec.text.numbers import known
from distillspec.training.resume import Position
from distillspec.training.shared_random import SharedRandomSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ProbeResult(NamedTuple):
    """alpha in [0, 1] over `tokens` tokens of text; counts of the decoded rounds of `gamma`
    drafted tokens, for tau.
    """

    alpha: float
    tokens: int
    counts: Counts
    gamma: int

    @property
    def is_a_number(self) -> bool:
        """False where a distribution was not finite."""
        return not math.isnan(self.alpha) or not self.tokens

    def beats(self, best: Position) -> bool:
        """Whether no earlier draft was better."""
        return not self.alpha <= best.best_alpha  # also true of the first, against nan

    def keep(self, best: Position) -> None:
        best.best_alpha = self.alpha

    def metrics(self) -> dict[str, float]:
        return {
            "probe/alpha": self.alpha,
            "probe/tau_tokens": self.counts.block_efficiency(),
        }

    def words(self) -> str:
        return (
            f"alpha {known(self.alpha, '.4f')} over {self.tokens} tokens, "
            f"tau {known(self.counts.block_efficiency(), '.3f', ' tokens')} at gamma {self.gamma}"
        )


class AcceptanceProbe:
    """Held-out prompts, and the target's answers to them, drawn once at the first measurement.

    Every measurement sees the same text and the same random numbers, also after a resumption, so
    that two of them differ by the draft alone. One probe can serve several drafts.
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
        """joint: every process must measure, at the same time: the target is split over them."""
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
        """Alpha and tau of a draft in eval mode, on the device of the target."""
        if self._texts is None:
            self._texts = self._drawn()
        sums = acceptance(
            self._target.model, draft, self._texts, self._policy, vocab_size=self._vocab_size
        )
        return ProbeResult(sums.mean(), sum(sums.tokens), self._decoded(draft), self.plan.gamma)

    def _drawn(self) -> list[DrawnText]:
        device = self._target.model.device
        responses = generate(
            self._target.model,
            [torch.tensor(prompt) for prompt in self._prompts],
            max_new_tokens=self.plan.max_new_tokens,
            policy=self._policy,
            chance=self._chance(derive_seed(self._seed, "probe/text"), device),
            eos_token_ids=self._eos_token_ids,
            pad_token=self._pad_token,
            vocab_size=self._vocab_size,
        )
        pairs = zip(self._prompts, responses, strict=True)
        return [DrawnText(tuple(prompt), tuple(text.tolist())) for prompt, text in pairs]

    def _chance(self, seed: int, device: torch.device) -> RandomSource:
        own = GeneratorSource(torch.Generator(device).manual_seed(seed))
        return SharedRandomSource(own) if self.joint else own

    def _decoded(self, draft: PreTrainedModel) -> Counts:
        device = self._target.model.device
        decoder = SpeculativeDecoder(
            eager_runner(self._target.model, vocab_size=self._vocab_size),
            make_runner(draft, "eager", 0, (), vocab_size=self._vocab_size),
            Configuration("probe", self.plan.gamma, ChainDraft(), FixedLength(), verify_token),
            self._policy,
            self._chance(derive_seed(self._seed, "probe/decode"), device),
        )
        counts = Counts()
        for prompt in self._prompts:
            tokens = torch.tensor(prompt, device=device)
            generation = decoder.decode(tokens, max_new_tokens=self.plan.max_new_tokens)
            counts += Counts.of(generation.rounds)
        return counts
