"""Text drawn from the target, and what it says about every draft: no clock, and no drafting.

Batches of it are cheap, so there can be many more prompts here than are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distillspec.measure import corpus_alpha
from distillspec.measure.bootstrap import Sums
from distillspec.measure.completions import MeasuredPrompt
from distillspec.measure.corpus_alpha import DrawnText
from distillspec.measure.expected_rounds import expected_counts
from distillspec.models.generate import generate
from distillspec.speculation.chance import GeneratorChance
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TextFacts:
    """What teacher-forcing found at one temperature, a text per prompt.

    overlap[draft][i]: sum_v min(p_v, q_v) added over the tokens of text i. entropy[i]: nats, added
    likewise. tokens[i]: their number. chances[draft][i]: of each token of text i, that it was a
    kept draft token (`corpus_alpha.accepted_chances`).
    """

    overlap: dict[str, list[float]]
    entropy: list[float]
    tokens: list[int]
    chances: dict[str, list[list[float]]]

    def alpha(self, draft: str) -> Sums:
        return Sums(self.overlap[draft], self.tokens)

    def expected_tau(self, draft: str, gamma: int) -> Sums:
        """Expected tokens over expected verifications, chains of gamma, token verification."""
        counts = [expected_counts(chances, gamma) for chances in self.chances[draft]]
        return Sums([one.emitted for one in counts], [one.verifications for one in counts])


def drawn_texts(
    target: PreTrainedModel,
    prompts: Sequence[MeasuredPrompt],
    policy: SamplingPolicy,
    *,
    max_new_tokens: int,
    ends: frozenset[int],
    seed: int,
    vocabulary: int | None,
) -> list[DrawnText]:
    """One completion of the target per prompt, up to end-of-text; the same in every call."""
    generator = torch.Generator(target.device).manual_seed(seed)
    responses = generate(
        target,
        [torch.tensor(prompt.tokens) for prompt in prompts],
        max_new_tokens=max_new_tokens,
        policy=policy,
        chance=GeneratorChance(generator),
        end_tokens=ends,
        pad_token=min(ends, default=0),
        vocabulary=vocabulary,
    )
    return [
        DrawnText(tuple(prompt.tokens), tuple(response.tolist()))
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def text_facts(
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    texts: Sequence[DrawnText],
    policy: SamplingPolicy,
    vocabulary: int | None,
) -> TextFacts:
    """Read every draft on the same texts."""
    overlap, chances = {}, {}
    for name, draft in drafts.items():
        covered = corpus_alpha.acceptance(target, draft, texts, policy, vocabulary=vocabulary)
        overlap[name] = list(covered.sums)
        chances[name] = corpus_alpha.accepted_chances(
            target, draft, texts, policy, vocabulary=vocabulary
        )
    entropy = corpus_alpha.entropy(target, texts, policy, vocabulary=vocabulary)
    return TextFacts(overlap, list(entropy.sums), list(entropy.tokens), chances)
