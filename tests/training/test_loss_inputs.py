from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.divergence.head import OutputHead
from distillspec.divergence.table import divergence
from distillspec.divergence.top_tokens import top_tokens
from distillspec.training.sides import CachedTopK, LossInputs

N, V, LARGER = 7, 11, 13


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


TARGET_HIDDEN, DRAFT_HIDDEN = drawn(N, 5), drawn(N, 4)


def both_forms(target_size: int, draft_size: int) -> tuple[LossInputs, LossInputs]:
    """The same two sides, as hidden states and as logits."""
    target, draft = OutputHead(drawn(target_size, 5)), OutputHead(drawn(draft_size, 4))
    how = {"temperature": 0.8, "chunk_tokens": 3}
    return (
        LossInputs(CachedTopK(TARGET_HIDDEN, None), target, DRAFT_HIDDEN, draft, **how),  # type: ignore[arg-type]
        LossInputs(
            CachedTopK(None, target.logits(TARGET_HIDDEN)),
            target,
            draft.logits(DRAFT_HIDDEN),
            None,
            **how,  # type: ignore[arg-type]
        ),
    )


@pytest.mark.parametrize("sizes", [(V, V), (V, LARGER), (LARGER, V)])
def test_both_forms_say_the_same_of_the_common_vocabulary(sizes: tuple[int, int]) -> None:
    weights, tokens = torch.rand(N), torch.arange(N)
    log_p, log_q = (
        torch.log_softmax(OutputHead(drawn(size, hidden.shape[1])).logits(hidden)[:, :V] / 0.8, -1)
        for size, hidden in zip(sizes, (TARGET_HIDDEN, DRAFT_HIDDEN), strict=True)
    )
    nats = (log_p.exp() * (log_p - log_q)).sum(-1)
    likelihood = log_q.gather(1, tokens[:, None])[:, 0]
    chance = (likelihood - log_p.gather(1, tokens[:, None])[:, 0]).exp().clamp(max=1.0)
    for sides in both_forms(*sizes):
        sums = sides.divergence(divergence("forward_kl"), weights)
        torch.testing.assert_close(sums.divergence, (weights * nats).sum())
        torch.testing.assert_close(sides.scores(divergence("forward_kl")).value, nats)
        torch.testing.assert_close(sides.scores(tokens).value, chance)
        found = sides.cross_entropy(tokens, weights, 0.8).divergence
        torch.testing.assert_close(found, -(weights * likelihood).sum())


def test_without_a_target_the_draft_is_read_whole() -> None:
    head, tokens = OutputHead(drawn(LARGER, 4)), torch.full((N,), LARGER - 1)
    likelihood = torch.log_softmax(head.logits(DRAFT_HIDDEN), -1)[:, -1]
    for draft, its_head in ((DRAFT_HIDDEN, head), (head.logits(DRAFT_HIDDEN), None)):
        sides = LossInputs(
            CachedTopK(None, None), None, draft, its_head, temperature=2.0, chunk_tokens=3
        )
        found = sides.cross_entropy(tokens, torch.ones(N), 1.0)
        torch.testing.assert_close(found.divergence, -likelihood.sum())
        assert bool(found.alpha.isnan())


def test_without_a_target_the_draft_is_read_over_the_common_vocabulary() -> None:
    head, tokens = OutputHead(drawn(LARGER, 4)), torch.full((N,), V - 1)
    likelihood = torch.log_softmax(head.logits(DRAFT_HIDDEN)[:, :V], -1)[:, -1]
    for draft, its_head in ((DRAFT_HIDDEN, head), (head.logits(DRAFT_HIDDEN), None)):
        sides = LossInputs(
            CachedTopK(None, None),
            None,
            draft,
            its_head,
            temperature=2.0,
            chunk_tokens=3,
            vocab_size=V,
        )
        found = sides.cross_entropy(tokens, torch.ones(N), 1.0)
        torch.testing.assert_close(found.divergence, -likelihood.sum())


@pytest.mark.parametrize("sizes", [(V, V), (V, LARGER)])
def test_a_kept_signal_of_all_tokens_says_what_the_whole_one_says(sizes: tuple[int, int]) -> None:
    """Over the vocabulary that it was kept of; the draft's may be larger."""
    weights, tokens = torch.rand(N), torch.arange(N)
    target, draft = OutputHead(drawn(sizes[0], 5)), OutputHead(drawn(sizes[1], 4))
    kept = top_tokens(TARGET_HIDDEN, target, k=V, temperature=0.8, chunk_tokens=2)
    signal = CachedTopK(None, None, kept)
    whole = both_forms(*sizes)[0]
    for states, head in ((DRAFT_HIDDEN, draft), (draft.logits(DRAFT_HIDDEN), None)):
        sides = LossInputs(signal, None, states, head, temperature=0.8, chunk_tokens=3)
        for name in ("forward_kl", "tvd"):
            measure = divergence(name)
            torch.testing.assert_close(
                sides.divergence(measure, weights), whole.divergence(measure, weights)
            )
            torch.testing.assert_close(sides.scores(measure), whole.scores(measure))
        found, expected = (s.cross_entropy(tokens, weights, 1.0) for s in (sides, whole))
        torch.testing.assert_close(found.divergence, expected.divergence)
