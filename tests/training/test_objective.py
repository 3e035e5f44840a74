from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillspec.corpus.batching import Batch, collate
from distillspec.models.frozen import FrozenTarget
from distillspec.models.loading import load_model
from distillspec.recipe.schema import Distill
from distillspec.training.objective import Objective, predicts_response, token_weights

ROWS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((5, 6), (7, 8, 0)),
    ((9,), (10,)),
    ((11, 12, 13, 14), (15, 16)),
    ((17, 18, 19), ()),
]


@pytest.fixture
def target(tiny_pair: Path) -> FrozenTarget:
    return FrozenTarget(load_model(str(tiny_pair / "target"), dtype=torch.float32))


@pytest.fixture
def draft(tiny_pair: Path) -> nn.Module:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32).train()


def _distill(**values: Any) -> Distill:
    return Distill(source={"fixed": 1.0}, chunk_tokens=2, **values)


def _logits(model: Any, tokens: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=tokens[None]).logits[0].double()
    return logits


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_the_position_before_a_response_token_predicts_it() -> None:
    batch = collate([((1, 2), (3, 4)), ((5,), (6,))], pad_token=0)
    assert predicts_response(batch).tolist() == [
        [False, True, True, False],
        [True, False, False, False],
    ]


def test_token_weights_count_tokens_or_sequences() -> None:
    batch = collate(ROWS, pad_token=0)
    assert token_weights(batch, "tokens").tolist() == [1.0] * 6
    by_sequence = token_weights(batch, "sequences")
    assert by_sequence.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0, 0.5, 0.5])
    assert float(by_sequence.sum()) == pytest.approx(3.0)  # rows that have a response


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_sum_is_that_of_each_row_forwarded_by_itself(
    target: FrozenTarget, draft: nn.Module, temperature: float
) -> None:
    nats = alpha = 0.0
    with torch.no_grad():
        for prompt, response in ROWS:
            tokens = torch.tensor([*prompt, *response])
            log_p = torch.log_softmax(_logits(target.model, tokens) / temperature, dim=-1)
            log_q = torch.log_softmax(_logits(draft, tokens) / temperature, dim=-1)
            for position in range(len(prompt) - 1, len(tokens) - 1):
                p, q = log_p[position].exp(), log_q[position].exp()
                nats += float((p * (log_p[position] - log_q[position])).sum())
                alpha += float(torch.minimum(p, q).sum())
    sums = Objective(_distill(temperature=temperature), target)(draft, collate(ROWS, 0))
    assert int(sums.tokens) == 6
    assert float(sums.divergence.detach()) == pytest.approx(nats, rel=1e-5)
    assert float(sums.alpha) == pytest.approx(alpha, rel=1e-5)


def test_cross_entropy_is_of_the_next_token_and_needs_no_target(draft: nn.Module) -> None:
    nats = 0.0
    with torch.no_grad():
        for prompt, response in ROWS:
            tokens = torch.tensor([*prompt, *response])
            log_q = torch.log_softmax(_logits(draft, tokens), dim=-1)
            for position, token in enumerate(response, start=len(prompt)):
                nats -= float(log_q[position - 1, token])
    sums = Objective(_distill(divergence="nll"), None)(draft, collate(ROWS, 0))
    assert float(sums.divergence.detach()) == pytest.approx(nats, rel=1e-5)
    assert bool(sums.alpha.isnan())


@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "tvd", "nll"])
def test_the_gradient_of_a_batch_is_that_of_any_split_of_it(
    target: FrozenTarget, draft: nn.Module, divergence: str, reduction: str
) -> None:
    objective = Objective(_distill(divergence=divergence, reduction=reduction), target)
    splits = [[ROWS], [ROWS[:1], ROWS[1:]], [[row] for row in ROWS], [ROWS[::2], ROWS[1::2]]]
    results = []
    for split in splits:
        draft.zero_grad()
        batches = [collate(rows, 0) for rows in split]
        weight = sum(float(token_weights(batch, reduction).sum()) for batch in batches)
        for batch in batches:
            (objective(draft, batch).divergence / weight).backward()  # type: ignore[no-untyped-call]
        results.append(_gradients(draft))
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-6)


def test_what_stands_in_prompts_padding_and_other_rows_changes_nothing(
    target: FrozenTarget, draft: nn.Module
) -> None:
    objective = Objective(_distill(), target)
    batch = collate(ROWS, pad_token=0)
    other = Batch(batch.tokens.where(batch.is_token, torch.tensor(42)), *batch[1:])
    with torch.no_grad():
        assert objective(draft, batch).divergence == objective(draft, other).divergence


def test_a_head_that_is_no_plain_matrix_gives_the_same_sum(
    target: FrozenTarget, draft: nn.Module, tiny_pair: Path
) -> None:
    odd = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    odd.config.final_logit_softcapping = 1.0  # which Llama's forward does not do
    batch = collate(ROWS, pad_token=0)
    for divergence in ("forward_kl", "nll"):
        objective = Objective(_distill(divergence=divergence), target)
        signal = objective.target_signal(odd, batch)
        assert signal.hidden is None
        plain, whole = objective(draft, batch), objective(odd, batch)
        torch.testing.assert_close(whole.divergence, plain.divergence)


def test_a_batch_without_responses_is_a_zero_that_has_gradients(
    target: FrozenTarget, draft: nn.Module
) -> None:
    sums = Objective(_distill(), target)(draft, collate([((1, 2), ())], 0))
    sums.divergence.backward()  # type: ignore[no-untyped-call]
    assert float(sums.divergence.detach()) == 0.0
    assert all(not gradient.any() for gradient in _gradients(draft))


def test_the_target_gets_no_gradient(target: FrozenTarget, draft: nn.Module) -> None:
    Objective(_distill(), target)(draft, collate(ROWS, 0)).divergence.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None and not p.requires_grad for p in target.model.parameters())
