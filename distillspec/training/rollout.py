"""Where a step's responses come from: the data, or the draft as it is now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from distillspec.corpus.batching import Batch, collate
from distillspec.corpus.module import Row
from distillspec.models.generate import generate
from distillspec.speculation.chance import Chance
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tokens = Sequence[int]


class Completed(NamedTuple):
    """Token ids; the response's end-of-text included, where it ended there."""

    prompt: Tokens
    response: Tokens


class Rollout:
    """Completes the rows of a step: those of origin "draft" are sampled from the model given.

    Sampling happens without gradients and at the temperature of the loss.
    """

    def __init__(
        self,
        *,
        temperature: float,
        max_new_tokens: int,
        end_tokens: frozenset[int],
        pad_token: int,
        vocabulary: int | None = None,
        on_prompts: bool = False,
    ) -> None:
        self.policy = SamplingPolicy(temperature=temperature)
        self.max_new_tokens = max_new_tokens
        self.end_tokens = end_tokens
        self.pad_token = pad_token
        self.vocabulary = vocabulary
        self.on_prompts = on_prompts

    def sampled(
        self, model: PreTrainedModel, rows: Sequence[Row], chance: Chance
    ) -> list[Completed]:
        """The rows in their order; those of origin "draft" with a response drawn from `model`."""
        ours = [row.prompt.tokens for row in rows if row.origin == "draft"]
        responses = generate(
            model,
            [torch.tensor(tokens) for tokens in ours],
            max_new_tokens=self.max_new_tokens,
            policy=self.policy,
            chance=chance,
            end_tokens=self.end_tokens,
            pad_token=self.pad_token,
            vocabulary=self.vocabulary,
        )
        drawn: Iterator[Tokens] = (response.tolist() for response in responses)
        return [
            Completed(row.prompt.tokens, next(drawn)) if row.origin == "draft" else _stored(row)
            for row in rows
        ]

    def stored(self, rows: Sequence[Row]) -> list[Completed]:
        """The rows in their order, where none is the draft's to complete."""
        return [_stored(row) for row in rows]

    def micro_batches(
        self, rows: Sequence[Completed], size: int, device: torch.device
    ) -> list[Batch]:
        """Right-padded batches of at most `size` rows of similar length."""
        by_length = sorted(rows, key=lambda row: len(row.prompt) + len(row.response))
        parts = [by_length[start : start + size] for start in range(0, len(by_length), size)]
        batches = [collate(part, self.pad_token, on_prompts=self.on_prompts) for part in parts]
        return [Batch(*(tensor.to(device) for tensor in batch)) for batch in batches]


def _stored(row: Row) -> Completed:
    assert row.prompt.response is not None, f"prompt {row.prompt.key} has no response"
    return Completed(row.prompt.tokens, row.prompt.response)
