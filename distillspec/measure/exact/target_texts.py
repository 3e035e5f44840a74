"""Text drawn from the target, and acceptance of every draft on it, without timing or drafting.

Batches are cheap, so there can be many more prompts than are decoded one by one.
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
    """Teacher-forced quantities at one temperature, one text per prompt.

    Attributes:
        overlap: overlap[draft][i] is sum_v min(p_v, q_v), summed over the tokens of text i up to
            its end-of-text.
        at_argmax: The same of p(argmax q).
        entropy: entropy[i] is the target's entropy in nats, summed over the same tokens.
        tokens: tokens[i] is the number of these tokens.
        keep_probabilities: keep_probabilities[draft][i] has for each token of text i, also after
            end-of-text, the probability that it was an accepted draft token
            (`corpus_alpha.Readings`). Timed decoding ignores end-of-text, and so does the expected
            tau.
        documents: documents[i] is the document of text i.
    """

    overlap: dict[str, list[float]]
    at_argmax: dict[str, list[float]]
    entropy: list[float]
    tokens: list[int]
    keep_probabilities: dict[str, list[list[float]]]
    documents: list[str]

    def alpha(self, draft: str) -> Sums:
        return by_document(Sums(self.overlap[draft], self.tokens), self.documents)

    def alpha_argmax(self, draft: str) -> Sums:
        return by_document(Sums(self.at_argmax[draft], self.tokens), self.documents)

    def expected_tau(self, draft: str, gamma: int) -> Sums:
        """Expected tokens over expected rounds, for chains of gamma and token verification."""
        counts = [
            expected_counts(keep_probabilities, gamma)
            for keep_probabilities in self.keep_probabilities[draft]
        ]
        return by_document(
            Sums([text.emitted for text in counts], [text.verifications for text in counts]),
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
    """Completions of `tokens` tokens per prompt, ignoring end-of-text.

    They are the same for the same models, prompts and seed on one machine.
    """
    # The temperature is part of the seed, so that no two temperatures share random numbers.
    generator = torch.Generator(target.device).manual_seed(
        derive_seed(seed, "texts of the target", policy.temperature)
    )
    responses = generate(
        target,
        [torch.tensor(prompt.tokens) for prompt in prompts],
        max_new_tokens=tokens,
        policy=policy,
        random_source=GeneratorSource(generator),
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
    """Read every draft on the same texts.

    Args:
        target: The model that drew the texts.
        drafts: At least one draft, by name.
        texts: One text per prompt.
        policy: Makes distributions from logits.
        documents: Documents of the prompts.
        ends: Ids of tokens that end a text.
        vocab_size: Tokens that all models share.
    """
    # alpha and entropy stop at end-of-text; expected tau goes on, as timed decoding does.
    tokens = [len(up_to_end(text.response, ends)[0]) for text in texts]
    overlap, at_argmax, keep_probabilities, entropy = {}, {}, {}, [0.0] * len(texts)
    for name, draft in drafts.items():
        texts_read = readings(target, draft, texts, policy, vocab_size=vocab_size)
        ended = list(zip(texts_read, tokens, strict=True))
        overlap[name] = [sum(text_read.overlap[:count]) for text_read, count in ended]
        at_argmax[name] = [sum(text_read.at_argmax[:count]) for text_read, count in ended]
        # The target's, so the same for every draft.
        entropy = [sum(text_read.entropy[:count]) for text_read, count in ended]
        keep_probabilities[name] = [text_read.keep_probability for text_read in texts_read]
    return TextFacts(overlap, at_argmax, entropy, tokens, keep_probabilities, list(documents))
