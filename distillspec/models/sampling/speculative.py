"""Batched sampling from a target by speculative decoding with a draft: rollout of many rows.

Exactly the target's distribution. All rows share each forward; each keeps as much of its draft as
it may. Caches are not cut per row: columns of rejected tokens are hidden from the row by its mask.
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
from distillspec.speculation.chance import RandomSource
from distillspec.speculation.sampling import SamplingPolicy


class DraftedBlock(NamedTuple):
    """What was drafted for one text in one round, on the CPU."""

    start: int
    """tokens of the response before it"""
    drafted: Tensor
    """long [G]"""
    acceptance: Tensor
    """[G], min(1, p/q) of each, given those before it"""
    kept: int
    states: Tensor | None
    """[G + 1, H]: the target's hidden states from which each drafted token, and the one after the
    last, was predicted"""


class SpeculatedText(NamedTuple):
    """A response of the target's distribution, and what verifying it has told; on the CPU."""

    response: Tensor
    """long [t], end token included"""
    states: Tensor | None
    """[t, H]: the target's hidden states that each token was drawn from; None where its head is
    not all that follows them"""
    blocks: list[DraftedBlock]
    """the rounds that wrote it; the last one may go beyond its end"""


@torch.no_grad()
def generate_speculatively(
    target: nn.Module,
    draft: nn.Module,
    prompts: Sequence[Tensor],
    *,
    gamma: int,
    max_new_tokens: int,
    policy: SamplingPolicy,
    chance: RandomSource,
    eos_token_ids: frozenset[int],
    vocab_size: int | None = None,
    batch_rows: int = 64,
) -> list[SpeculatedText]:
    """Draw one response of the target per prompt (long [t], not empty), in the given order.

    gamma: tokens drafted a round. The models run in eval mode and are left in the modes they were
    in. vocab_size: logits are trimmed to this many tokens. Errors: DistillSpecError for a model
    whose attention takes no mask of ours (sliding windows, flash kernels).
    """
    assert all(len(prompt) for prompt in prompts), "an empty prompt has no next token"
    for model in (target, draft):
        check_takes_a_tree(bare_model(model))
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    texts: dict[int, SpeculatedText] = {}
    with forward_of(target) as target_forward, forward_of(draft) as draft_forward:
        head = output_head(target, vocab_size)
        ends = torch.tensor(sorted(eos_token_ids), dtype=torch.long, device=target_forward.device)
        for start in range(0, len(order), batch_rows):
            numbers = order[start : start + batch_rows]
            rows = [prompts[number].to(ends.device) for number in numbers]
            rounds = SpeculativeRounds(
                target_forward, draft_forward, head, rows, gamma, policy, chance, vocab_size
            )
            rounds.run(max_new_tokens, ends)
            records = rounds.records()
            for row, number in enumerate(numbers):
                texts[number] = _text(records, row, max_new_tokens, ends.cpu())
    return [texts[number] for number in range(len(prompts))]


def _text(
    records: Sequence[SpeculatedRound], row: int, max_new_tokens: int, ends: Tensor
) -> SpeculatedText:
    """The response of one row, from the rounds it took part in."""
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
