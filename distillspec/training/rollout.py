"""The responses of a step: from the data, from the models at their current weights, or replayed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from distillspec.corpus.batches.batching import Batch, KnownResponses, collate
from distillspec.corpus.batches.data_module import TrainingRow
from distillspec.corpus.batches.tree_rows import (
    RejectedBranch,
    RejectedBranches,
    TreeRow,
    collate_trees,
    packed,
)
from distillspec.models.bare import bare_model
from distillspec.models.runners.tree_mask import check_takes_a_tree
from distillspec.models.sampling.generate import ResponseWriter, generate
from distillspec.models.sampling.speculative import SpeculatedText, generate_speculatively
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.recipe.distill import DistillConfig
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.loss_positions import tokens_per_text
from distillspec.training.replay import Completed, ReplayBuffer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MicroBatch(NamedTuple):
    """Rows with the batch that they form, in the same order.

    Attributes:
        rows: The rows.
        batch: Their tokens and masks.
        is_stored: Whether all responses were known before training.
    """

    rows: list[Completed]
    batch: Batch
    is_stored: bool = False


class Rollout:
    """Completes the rows of a step: a model writes the responses that are missing.

    It writes without gradients and at the temperature of the loss.
    """

    def __init__(
        self,
        distill: DistillConfig,
        target: FrozenTarget | None,
        *,
        max_new_tokens: int,
        eos_token_ids: frozenset[int],
        pad_token: int,
        vocab_size: int | None = None,
        processes: int = 1,
    ) -> None:
        """Prepare the rollout of a run.

        Args:
            distill: Sources of responses, replay and packing; `Step` puts those of a phase here.
            target: None if only the draft writes.
            max_new_tokens: Longest response.
            eos_token_ids: End a response.
            pad_token: Fills batches.
            vocab_size: Tokens that both models share; None if they share all.
            processes: Processes that share the replay buffer.
        """
        self.distill = distill
        self.target = target
        self.policy = SamplingPolicy(temperature=distill.temperature)
        self.max_new_tokens = max_new_tokens
        self.eos_token_ids = eos_token_ids
        self.pad_token = pad_token
        self.vocab_size = vocab_size
        self._processes = processes
        self.ring = ReplayBuffer(
            math.ceil(distill.replay.sequences / processes), distill.replay.max_age
        )

    @property
    def _keeps_states(self) -> bool:
        return self.distill.reads_target and not self.distill.on_prompts

    @property
    def writes(self) -> bool:
        """Whether a model writes responses during training."""
        return self.distill.source.of != self.distill.source.stored

    def check(self, draft: nn.Module) -> None:
        """Check that the models can write as the recipe asks.

        Raises:
            DistillSpecError: Speculative sampling or packing needs tree attention, and a model
                does not support it.
        """
        if "speculative" in self.distill.origins or self.distill.packing:
            check_takes_a_tree(bare_model(draft))
            if self.target is not None:
                check_takes_a_tree(self.target.model)

    def completed(
        self,
        draft: PreTrainedModel,
        rows: Sequence[TrainingRow],
        step: int,
        generator: torch.Generator,
    ) -> list[Completed]:
        """Complete the rows of a step.

        Args:
            draft: Writes responses with its current weights.
            rows: Rows of this process.
            step: The current step.
            generator: Decides draws and replays.

        Returns:
            As many rows: stored responses first, then replayed ones, then new ones.
        """
        # 1. Responses of earlier steps. Those that the buffer lacks are written below.
        wanted = sum(row.origin == "replay" for row in rows)
        replayed = self.ring.draw(wanted, step, generator) if wanted else []
        # 2. Sort the other rows: responses from the data, and prompts by the way to write.
        prompts: dict[str, list[list[int]]] = {"draft": [], "speculative": []}
        stored, left = [], len(replayed)
        fallback = "draft" if self.distill.source.draft else "speculative"
        for row in rows:
            if row.prompt.response is not None:
                stored.append(_stored(row))
            elif row.origin == "replay" and left:
                left -= 1
            else:
                way = fallback if row.origin == "replay" else row.origin
                prompts[way].append(list(row.prompt.tokens))
        # 3. Write, and store what later steps may replay.
        source = GeneratorSource(generator)
        written = self._drafted(draft, prompts["draft"], source)
        written += self._speculated(draft, prompts["speculative"], source)
        if self.distill.source.replay:
            self.ring.add(written, step)
        return [*stored, *replayed, *written]

    def stored(self, rows: Sequence[TrainingRow]) -> list[Completed]:
        """The rows in their order, if all of them have a response."""
        return [_stored(row) for row in rows]

    def micro_batches(
        self, rows: Sequence[Completed], size: int, device: torch.device
    ) -> list[MicroBatch]:
        """Batches of rows of similar length, padded on the right, or packed.

        The number of batches depends only on the number of rows, so that processes with sharded
        weights run the same number of forwards.

        Args:
            rows: Completed rows of this process.
            size: Rows of a batch, at most.
            device: Receives the batches.
        """
        by_length = sorted(rows, key=lambda row: len(row.prompt) + len(row.response))
        parts = [by_length[start : start + size] for start in range(0, len(by_length), size)]
        return [self._micro_batch(part, device) for part in parts]

    def learn(self, micro: MicroBatch, states: Tensor | None) -> None:
        """Store the target's hidden states of rows that may be replayed.

        Args:
            micro: Rows and batch.
            states: [N, H], row after row; None if the target gave none.
        """
        if states is None or not self.distill.source.replay or not self._keeps_states:
            return
        counts = tokens_per_text(micro.batch).tolist()
        for row, part in zip(micro.rows, states.split(counts), strict=True):
            if row.states is None:
                self.ring.learn(row, part)

    def state_dict(self) -> list[dict[str, Any]]:
        """The replay buffer: with the weights, all that the rows of later steps depend on."""
        return self.ring.state_dict()

    def load_state_dict(self, of_processes: Sequence[list[dict[str, Any]]], rank: int) -> None:
        """Restore the replay buffer.

        Args:
            of_processes: `state_dict` of each process that saved. If the number of processes has
                changed, the entries are dealt out to the new ones.
            rank: This process.
        """
        if len(of_processes) == self._processes:
            self.ring.load_state_dict(of_processes[rank])
            return
        merged = [entry for entries in of_processes for entry in entries]
        # Ascending by step: a full buffer drops its first entries, the oldest.
        merged.sort(key=lambda entry: entry["step"])
        self.ring.load_state_dict(merged[rank :: self._processes])

    def _micro_batch(self, rows: list[Completed], device: torch.device) -> MicroBatch:
        packing = self.distill.packing
        # 1. The batch: padded rows, or trees for packing and for rejected branches.
        if packing is None and all(row.branches is None for row in rows):
            texts = [(row.prompt, row.response) for row in rows]
            batch = collate(texts, self.pad_token, on_prompts=self.distill.on_prompts)
        else:
            trees = [self._tree(row) for row in rows]
            groups = packed(trees, packing) if packing else [[tree] for tree in trees]
            # Packing reorders the texts. Trees hold lists and cannot be hashed, so their ids are.
            row_of = {id(tree): row for tree, row in zip(trees, rows, strict=True)}
            rows = [row_of[id(tree)] for group in groups for tree in group]
            batch = collate_trees(groups, self.pad_token)
        # 2. The target's states that are known: replayed rows and speculative sampling bring them.
        counts = tokens_per_text(batch).tolist()
        is_known = [
            row.states is not None for row, n in zip(rows, counts, strict=True) for _ in range(n)
        ]
        states = [row.states for row in rows if row.states is not None]
        if states:
            known = KnownResponses(torch.tensor(is_known, dtype=torch.bool), torch.cat(states))
            batch = batch._replace(known=known)
        return MicroBatch(rows, batch.to(device), all(row.is_stored for row in rows))

    def _tree(self, row: Completed) -> TreeRow:
        # No position predicts the first token of a prompt.
        learned = len(row.response) + (len(row.prompt) - 1 if self.distill.on_prompts else 0)
        weight = 1.0 / max(1, learned) if self.distill.reduction == "sequences" else 1.0
        branches = row.branches or RejectedBranches.of_text(learned, weight)
        return TreeRow(row.prompt, row.response, branches)

    def _drafted(
        self, draft: PreTrainedModel, prompts: list[list[int]], source: GeneratorSource
    ) -> list[Completed]:
        """Responses of the draft, or of draft and target, which then alternate by token."""
        if not prompts:
            return []
        shares = self.distill.source
        writers: list[ResponseWriter] = [ResponseWriter(draft, shares.draft)]
        if shares.per == "token":
            assert self.target is not None
            writers.append(ResponseWriter(self.target.model, shares.target))
        responses = generate(
            writers,
            [torch.tensor(tokens) for tokens in prompts],
            max_new_tokens=self.max_new_tokens,
            policy=self.policy,
            random_source=source,
            eos_token_ids=self.eos_token_ids,
            pad_token=self.pad_token,
            vocab_size=self.vocab_size,
        )
        return [
            Completed(prompt, response.tolist())
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def _speculated(
        self, draft: PreTrainedModel, prompts: list[list[int]], source: GeneratorSource
    ) -> list[Completed]:
        """Responses of speculative sampling, with rejected branches if the recipe asks for them."""
        if not prompts:
            return []
        assert self.target is not None
        texts = generate_speculatively(
            self.target.model,
            draft,
            [torch.tensor(tokens) for tokens in prompts],
            gamma=self.distill.speculative.gamma,
            max_new_tokens=self.max_new_tokens,
            policy=self.policy,
            random_source=source,
            eos_token_ids=self.eos_token_ids,
            vocab_size=self.vocab_size,
        )
        pairs = zip(prompts, texts, strict=True)
        if self.distill.speculative.rejected:
            return [
                with_branches(
                    prompt,
                    text,
                    eos_token_ids=self.eos_token_ids,
                    max_new_tokens=self.max_new_tokens,
                )
                for prompt, text in pairs
            ]
        return [
            Completed(prompt, text.response.tolist(), text.states if self._keeps_states else None)
            for prompt, text in pairs
        ]


def with_branches(
    prompt: Sequence[int],
    text: SpeculatedText,
    *,
    eos_token_ids: frozenset[int],
    max_new_tokens: int,
) -> Completed:
    """The text with its rejected branches, each state weighted by the probability to reach it.

    States after an end-of-text token, or beyond the longest response, are left out.

    Args:
        prompt: Token ids.
        text: Result of speculative sampling.
        eos_token_ids: End a response.
        max_new_tokens: Longest response.
    """
    weights: list[float] = []
    sides: list[RejectedBranch] = []
    states = [] if text.states is None else [text.states]
    for block in text.blocks:
        # 1. Weight the accepted tokens, and the token of the target after them.
        #    reached[i] is the probability that the first i drafted tokens are accepted.
        reached = [1.0, *block.acceptance.cumprod(0).tolist()]
        weights += reached[: block.kept + 1]
        # 2. Find the rejected tokens before the first end token. The state after each of them
        #    predicts one more token, which must be within the limit: hence the - 1.
        drafted = block.drafted.tolist()
        ends = (index for index, token in enumerate(drafted) if token in eos_token_ids)
        stop = min(next(ends, len(drafted)), max_new_tokens - 1 - block.start)
        # 3. Make their branch. The state after drafted token i has the index i + 1.
        if block.kept < stop:
            after = [index + 1 for index in range(block.kept, stop)]
            sides.append(
                RejectedBranch(
                    block.start + block.kept,
                    drafted[block.kept : stop],
                    [reached[index] for index in after],
                )
            )
            if block.states is not None:
                states.append(block.states[after])
    # The last block may reach beyond the end of the response.
    branches = RejectedBranches(weights[: len(text.response)], sides)
    known = torch.cat(states) if states else None
    return Completed(prompt, text.response.tolist(), known, branches)


def _stored(row: TrainingRow) -> Completed:
    assert row.prompt.response is not None, f"prompt {row.prompt.key} has no response"
    return Completed(row.prompt.tokens, row.prompt.response, is_stored=True)
