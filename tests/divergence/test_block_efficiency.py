from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from distillspec.divergence.block_efficiency import block_worth

LENGTHS = [5, 1, 0, 3]


def alphas() -> Tensor:
    return torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def kept_one_by_one(alpha: Tensor, lengths: list[int], gamma: int) -> Tensor:
    """The definition, block after block."""
    found, first = [], 0
    for length in lengths:
        row = alpha[first : first + length]
        first += length
        for start in range(length):
            chain, kept = torch.ones((), dtype=alpha.dtype), torch.zeros((), dtype=alpha.dtype)
            for place in range(start, min(start + gamma, length)):
                chain = chain * row[place]
                kept = kept + chain
            found.append(kept)
    return torch.stack(found)


def test_what_a_block_keeps_and_what_that_is_worth_by_hand() -> None:
    worth = block_worth(torch.tensor([0.5, 0.8]), [2], gamma=2)
    assert worth.kept.tolist() == pytest.approx([0.5 + 0.4, 0.8])
    # the first one opens the second; the second is also the head of a block of its own
    assert worth.weights.tolist() == pytest.approx([1.0 + 0.8, 0.5 + 1.0])


@pytest.mark.parametrize("gamma", [1, 2, 4, 9])
def test_the_weights_are_the_gradient_of_what_is_kept(gamma: int) -> None:
    leaf = alphas().requires_grad_()
    kept = kept_one_by_one(leaf, LENGTHS, gamma)
    (expected,) = torch.autograd.grad(kept.sum(), leaf)
    worth = block_worth(leaf.detach(), LENGTHS, gamma)
    torch.testing.assert_close(worth.kept, kept.detach())
    torch.testing.assert_close(worth.weights, expected)


def test_blocks_of_one_token_weigh_all_alike() -> None:
    assert block_worth(alphas(), LENGTHS, gamma=1).weights.tolist() == [1.0] * 9


def test_texts_do_not_know_each_other() -> None:
    together = block_worth(alphas(), LENGTHS, gamma=3)
    alone = [block_worth(part, [len(part)], 3) for part in alphas().split([5, 1, 3])]
    for name in ("kept", "weights"):
        joined = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), joined)


def test_keep_chances_on_text_of_the_target_give_what_the_draft_keeps_in_expectation() -> None:
    """Every text of three tokens walked: what drafted blocks of two keep, and its gradient."""
    generator = torch.Generator().manual_seed(1)
    V, T, gamma, first = 3, 3, 2, 0
    p = torch.randn(V, V, dtype=torch.float64, generator=generator).mul(2.0).softmax(-1)
    leaf = torch.randn(V, V, dtype=torch.float64, generator=generator).requires_grad_()
    q = leaf.softmax(-1)
    overlap = torch.minimum(p, q)
    reached = torch.zeros(
        V, dtype=torch.float64
    )  # the target's distribution of what a block begins after
    reached[first] = 1.0
    kept = torch.zeros((), dtype=torch.float64)
    for start in range(T):
        drafted = reached
        for _ in range(start, min(start + gamma, T)):  # drawn by q, kept with min(1, p / q)
            drafted = drafted @ overlap
            kept = kept + drafted.sum()
        reached = reached @ p
    (expected,) = torch.autograd.grad(kept, leaf, retain_graph=True)

    value, surrogate = 0.0, torch.zeros((), dtype=torch.float64)
    approximate = 0.0
    for text in itertools.product(range(V), repeat=T):
        before, after = [first, *text[:-1]], list(text)
        weight = float(p[before, after].prod())
        of_q = q[before, after]
        random_source = (of_q / p[before, after]).clamp(max=1.0).detach()
        worth = block_worth(random_source, [T], gamma)
        value += weight * float(worth.kept.sum())
        slope = worth.weights * random_source * (random_source < 1.0)
        surrogate = surrogate + weight * (slope * of_q.log()).sum()
        alpha = overlap[before].sum(-1).detach()
        approximate += weight * float(block_worth(alpha, [T], gamma).kept.sum())
    assert value == pytest.approx(float(kept.detach()), rel=1e-12)
    (found,) = torch.autograd.grad(surrogate, leaf)
    torch.testing.assert_close(found, expected)
    assert abs(approximate / value - 1.0) > 0.001  # alpha along one path is not that


def test_no_text_at_all_is_worth_nothing() -> None:
    for lengths in ([], [0, 0]):
        worth = block_worth(torch.zeros(0), lengths, gamma=4)
        assert worth.kept.shape == worth.weights.shape == (0,)
