"""Text drawn from the target, and what it says about every draft: no clock, and no drafting.

Batches of it are cheap, so there can be many more prompts here than are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distillspec.measure.exact.corpus_alpha import readings
from distillspec.measure.exact.expected_rounds import expected_counts
from distillspec.measure.exact.prompt import MeasuredPrompt
from distillspec.measure.stats.intervals import Sums, by_document
from distillspec.models.sampling.generate import DrawnText, generate
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.limits import up_to_end
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NO_TOKENS: frozenset[int] = frozenset()


@dataclass(frozen=True)
class TextFacts:
    """What teacher-forcing found at one temperature, a text per prompt.

    overlap[draft][i]: sum_v min(p_v, q_v) added over the tokens of text i up to its end.
    at_argmax[draft][i]: p(argmax q), added likewise. entropy[i]: nats, added likewise.
    tokens[i]: their number. chances[draft][i]: of each token of text i, beyond its end too, that
    it was a kept draft token (`corpus_alpha.Readings`): timed decoding ignores end-of-text, and so
    does the tau that is expected of it. documents[i]: what the prompt of text i comes from; alpha
    and expected tau are sums over these.
    """

    overlap: dict[str, list[float]]
    at_argmax: dict[str, list[float]]
    entropy: list[float]
    tokens: list[int]
    chances: dict[str, list[list[float]]]
    documents: list[str]

    def alpha(self, draft: str) -> Sums:
        return by_document(Sums(self.overlap[draft], self.tokens), self.documents)

    def alpha_argmax(self, draft: str) -> Sums:
        return by_document(Sums(self.at_argmax[draft], self.tokens), self.documents)

    def expected_tau(self, draft: str, gamma: int) -> Sums:
        """Expected tokens over expected verifications, chains of gamma, token verification."""
        counts = [expected_counts(chances, gamma) for chances in self.chances[draft]]
        return by_document(
            Sums([one.emitted for one in counts], [one.verifications for one in counts]),
            self.documents,
        )


def drawn_texts(
    target: PreTrainedModel,
    prompts: Sequence[MeasuredPrompt],
    policy: SamplingPolicy,
    *,
    tokens: int,
    seed: int,
    vocab_size: int | None,
) -> list[DrawnText]:
    """A completion of `tokens` tokens per prompt, end-of-text ignored.

    The same for the same models, prompts and seed on one machine.
    """
    generator = torch.Generator(target.device).manual_seed(
        derive_seed(seed, "texts of the target", policy.temperature)
    )
    responses = generate(
        target,
        [torch.tensor(prompt.tokens) for prompt in prompts],
        max_new_tokens=tokens,
        policy=policy,
        chance=GeneratorSource(generator),
        eos_token_ids=_NO_TOKENS,
        pad_token=0,
        vocab_size=vocab_size,
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
    *,
    documents: Sequence[str],
    ends: frozenset[int],
    vocab_size: int | None,
) -> TextFacts:
    """Read every draft on the same texts. drafts: at least one. documents: of the prompts."""
    tokens = [len(up_to_end(text.response, ends)[0]) for text in texts]
    overlap, at_argmax, chances, entropy = {}, {}, {}, [0.0] * len(texts)
    for name, draft in drafts.items():
        found = readings(target, draft, texts, policy, vocab_size=vocab_size)
        ended = list(zip(found, tokens, strict=True))
        overlap[name] = [sum(one.overlap[:count]) for one, count in ended]
        at_argmax[name] = [sum(one.at_argmax[:count]) for one, count in ended]
        entropy = [sum(one.entropy[:count]) for one, count in ended]  # the target's: always equal
        chances[name] = [one.chance for one in found]
    return TextFacts(overlap, at_argmax, entropy, tokens, chances, list(documents))
