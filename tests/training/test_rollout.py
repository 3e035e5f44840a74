from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from distillspec.corpus.module import Row
from distillspec.corpus.prompts import Prompt
from distillspec.models.loading import load_model
from distillspec.speculation.chance import GeneratorChance
from distillspec.training.replica import Replica
from distillspec.training.rollout import Completed, Rollout

CPU = torch.device("cpu")
FORCED = 77


@pytest.fixture
def draft(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32)


@pytest.fixture
def rollout() -> Rollout:
    return Rollout(temperature=1.0, max_new_tokens=4, end_tokens=frozenset({0}), pad_token=0)


def _chance(seed: int = 0) -> GeneratorChance:
    return GeneratorChance(torch.Generator().manual_seed(seed))


def _rows() -> list[Row]:
    def prompt(name: str, *tokens: int, response: tuple[int, ...] | None = None) -> Prompt:
        return Prompt(name, tokens, response, "", "plain")

    return [
        Row(prompt("a", 1, 2, 3, 4), "draft"),
        Row(prompt("b", 5, response=(6, 7)), "fixed"),
        Row(prompt("c", 8, 9), "draft"),
        Row(prompt("d", 10, 11, response=(12,)), "target"),
    ]


def _force(draft: PreTrainedModel, token: int) -> None:
    """Make every distribution of the draft nearly one-hot: any last state points at `token`."""
    with torch.no_grad():
        draft.model.norm.weight.zero_()  # type: ignore[union-attr,operator]
    head = torch.nn.Linear(draft.config.hidden_size, draft.config.vocab_size)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[token] = 1e4
    draft.lm_head = head


def test_stored_responses_are_taken_and_missing_ones_drawn_in_the_given_order(
    draft: PreTrainedModel, rollout: Rollout
) -> None:
    completed = rollout.sampled(draft, _rows(), _chance())
    assert [row.prompt for row in completed] == [(1, 2, 3, 4), (5,), (8, 9), (10, 11)]
    assert completed[1].response == (6, 7)
    assert completed[3].response == (12,)
    for row in (completed[0], completed[2]):
        assert 1 <= len(row.response) <= 4


def test_the_same_random_stream_draws_the_same_text(
    draft: PreTrainedModel, rollout: Rollout
) -> None:
    first = rollout.sampled(draft, _rows(), _chance(1))
    assert rollout.sampled(draft, _rows(), _chance(1)) == first
    assert rollout.sampled(draft, _rows(), _chance(2)) != first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_draft_forced_to_one_token_emits_it_in_the_very_next_rollout(
    draft: PreTrainedModel, rollout: Rollout, dtype: torch.dtype
) -> None:
    _force(draft, 5)
    replica = Replica(draft, dtype, sharded=False)
    before = rollout.sampled(replica.refresh(CPU), _rows(), _chance())
    assert [row.response for row in before[::2]] == [[5] * 4] * 2
    with torch.no_grad():
        draft.lm_head.bias[5] = 0.0  # type: ignore[union-attr,index,operator]
        draft.lm_head.bias[FORCED] = 1e4  # type: ignore[union-attr,index,operator]
    after = rollout.sampled(replica.refresh(CPU), _rows(), _chance())
    assert [row.response for row in after[::2]] == [[FORCED] * 4] * 2


def test_sampling_leaves_no_gradient(draft: PreTrainedModel, rollout: Rollout) -> None:
    rollout.sampled(draft.train(), _rows(), _chance())
    assert draft.training
    assert all(p.grad is None for p in draft.parameters())


def test_responses_end_with_the_end_token_and_keep_it(
    draft: PreTrainedModel, rollout: Rollout
) -> None:
    _force(draft, 0)
    completed = rollout.sampled(draft, _rows()[:1], _chance())
    assert completed[0].response == [0]


def test_micro_batches_hold_every_row_once_and_rows_of_like_length(rollout: Rollout) -> None:
    rows = [Completed((1,) * n, (2,) * (n % 3)) for n in (9, 1, 5, 2, 7)]
    batches = rollout.micro_batches(rows, 2, CPU)
    assert [len(batch.tokens) for batch in batches] == [2, 2, 1]
    lengths = [n for batch in batches for n in batch.is_token.sum(dim=1).tolist()]
    assert lengths == sorted(len(row.prompt) + len(row.response) for row in rows)
