"""Batched sampling from a target by speculative decoding with a draft.

The texts have exactly the target's distribution. All rows share each forward, and each row keeps as
many drafted tokens as the verification accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillspec.models.bare import bare_model
from distillspec.models.runners.tree_mask import check_takes_a_tree
from distillspec.models.sampling.forward import forward_of
from distillspec.models.sampling.speculative_rounds import SpeculatedRound, SpeculativeRounds
from distillspec.models.surgery.hidden_states import output_head
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.sampling import SamplingPolicy


class DraftedBlock(NamedTuple):
    """The tokens drafted for one text in one round, on the CPU.

    Attributes:
        start: Tokens of the response before the block.
        drafted: Long [G].
        acceptance: Shape [G], min(1, p/q) of each token given those before it.
        kept: Number of accepted tokens.
        states: Shape [G + 1, H], the target's hidden states that predict each drafted token and the
            token after the last.
    """

    start: int
    drafted: Tensor
    acceptance: Tensor
    kept: int
    states: Tensor | None


class SpeculatedText(NamedTuple):
    """A response with the target's distribution, and the data of its verification, on the CPU.

    Attributes:
        response: Long [t], including the end token.
        states: Shape [t, H], the target's hidden states that each token was drawn from; None if the
            logits need more than the head.
        blocks: The rounds that wrote the response; the last one may reach beyond its end.
    """

    response: Tensor
    states: Tensor | None
    blocks: list[DraftedBlock]


@torch.no_grad()
def generate_speculatively(
    target: nn.Module,
    draft: nn.Module,
    prompts: Sequence[Tensor],
    *,
    gamma: int,
    max_new_tokens: int,
    policy: SamplingPolicy,
    random_source: RandomSource,
    eos_token_ids: frozenset[int],
    vocab_size: int | None = None,
    batch_rows: int = 64,
) -> list[SpeculatedText]:
    """Draw one response of the target per prompt, in the order of the prompts.

    Both models run in eval mode, and their modes are restored.

    Args:
        target: The model whose distribution the responses have.
        draft: The draft, on the target's device.
        prompts: Long [t] each, not empty.
        gamma: Tokens drafted per round.
        max_new_tokens: Tokens of the longest response.
        policy: Temperature and truncation, for both models.
        random_source: The source of the draws.
        eos_token_ids: Tokens that end a response.
        vocab_size: Logits are trimmed to this many tokens.
        batch_rows: Prompts per batch.

    Raises:
        DistillSpecError: A model does not accept a prepared attention mask (sliding windows, flash
            kernels).
    """
    assert all(len(prompt) for prompt in prompts), "an empty prompt has no next token"
    for model in (target, draft):
        check_takes_a_tree(bare_model(model))
    # Prompts of similar length share a batch, which needs little padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    texts: dict[int, SpeculatedText] = {}
    with forward_of(target) as target_forward, forward_of(draft) as draft_forward:
        head = output_head(target, vocab_size)
        ends = torch.tensor(sorted(eos_token_ids), dtype=torch.long, device=target_forward.device)
        for start in range(0, len(order), batch_rows):
            numbers = order[start : start + batch_rows]
            rows = [prompts[number].to(ends.device) for number in numbers]
            rounds = SpeculativeRounds(
                target_forward, draft_forward, head, rows, gamma, policy, random_source, vocab_size
            )
            rounds.run(max_new_tokens, ends)
            records = rounds.records()
            for row, number in enumerate(numbers):
                texts[number] = _text(records, row, max_new_tokens, ends.cpu())
    return [texts[number] for number in range(len(prompts))]


def _text(
    records: Sequence[SpeculatedRound], row: int, max_new_tokens: int, ends: Tensor
) -> SpeculatedText:
    """The response of one row, from the rounds in which it took part."""
    rounds = [record for record in records if record.took_part[row]]
    blocks = [
        DraftedBlock(
            int(record.start[row]),
            record.drafted[row],
            record.acceptance[row],
            int(record.kept[row]),
            None if record.states is None else record.states[row],
        )
        for record in rounds
    ]
    # A round emits its accepted tokens and the one after them.
    emitted = [
        part
        for record, block in zip(rounds, blocks, strict=True)
        for part in (block.drafted[: block.kept], record.following[row : row + 1])
    ]
    tokens = torch.cat(emitted)[:max_new_tokens]
    is_end = torch.isin(tokens, ends)
    length = int(is_end.int().argmax()) + 1 if bool(is_end.any()) else len(tokens)
    states = [block.states[: block.kept + 1] for block in blocks if block.states is not None]
    return SpeculatedText(
        tokens[:length].clone(), torch.cat(states)[:length] if states else None, blocks
    )
