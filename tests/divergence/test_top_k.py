"""Coarse divergences: properties, bounds, and the gradient through the lump of the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.divergence.acceptance import acceptance
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import row_scores, weighted_sums
from distillspec.divergence.table import DIVERGENCES, divergence
from distillspec.divergence.top_k import TopKDivergence
from distillspec.divergence.top_tokens import TopTokens, top_tokens

N, V, H, K = 23, 40, 5, 6
TEMPERATURE = 0.7
F_DIVERGENCES = ["forward_kl", "reverse_kl", "jsd", "tvd"]
BOUNDED = [*F_DIVERGENCES, "lk_alpha"]  # a growing function of one

every_name = pytest.mark.parametrize("name", DIVERGENCES)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


P_LOGITS = 2.0 * drawn(N, V)
HIDDEN = drawn(N, H)
WEIGHTS = torch.rand(N, generator=torch.Generator().manual_seed(1)) + 0.5


def head(dtype: torch.dtype = torch.float32, **kind: Any) -> OutputHead:
    bias = drawn(V, 1, dtype=dtype)[:, 0].requires_grad_() if kind.pop("biased", False) else None
    return OutputHead(drawn(V, H, dtype=dtype).requires_grad_(), bias, **kind)


def kept(k: int, p_logits: Tensor = P_LOGITS) -> TopTokens:
    return top_tokens(p_logits, None, k=k, temperature=TEMPERATURE, chunk_tokens=7)


def coarse_logits(top: TopTokens, logits: Tensor) -> Tensor:
    """The distribution's k + 1 log-masses, by autograd: the reference for all that follows."""
    ids = top.ids.long()
    log_q = torch.log_softmax(logits, -1)
    others = log_q.scatter(1, ids, -torch.inf)
    return torch.cat((log_q.gather(1, ids), others.logsumexp(-1, keepdim=True)), -1)


def by_autograd(name: str, top: TopTokens, q_logits: Tensor) -> Tensor:
    p = torch.cat((top.log_probability, top.log_rest[:, None]), -1)
    return divergence(name).reference(p, coarse_logits(top, q_logits / TEMPERATURE))


def chunked(
    name: str, top: TopTokens, draft: Tensor, its_head: OutputHead | None, **changed: Any
) -> DivergenceSums:
    how = {"weights": WEIGHTS, "chunk_tokens": 6, "temperature": TEMPERATURE, **changed}
    return weighted_sums(ModelRows(draft, its_head), TopKDivergence(divergence(name), top), **how)


def values(name: str, k: int, q_logits: Tensor) -> Tensor:
    top = kept(k)
    how = {"temperature": TEMPERATURE, "chunk_tokens": 5}
    return row_scores(ModelRows(q_logits), TopKDivergence(divergence(name), top), **how).value  # type: ignore[arg-type]


@every_name
@pytest.mark.parametrize("chunk_tokens", [1, 6, 1000])
@pytest.mark.parametrize(
    "kind",
    [{}, {"biased": True}, {"biased": True, "scale": 1.5, "softcap": 2.0}],
    ids=["plain", "bias", "softcap"],
)
def test_chunks_give_value_and_gradient_of_the_coarse_distributions(
    name: str, chunk_tokens: int, kind: dict[str, Any]
) -> None:
    top, its_head, hidden = kept(K), head(**kind), HIDDEN.clone().requires_grad_()
    leaves = [each for each in (hidden, its_head.weight, its_head.bias) if each is not None]
    found = chunked(name, top, hidden, its_head, chunk_tokens=chunk_tokens)
    expected = (WEIGHTS * by_autograd(name, top, its_head.logits(hidden))).sum()
    torch.testing.assert_close(found.divergence, expected, rtol=1e-5, atol=1e-5)
    assert found.tokens == N
    for mine, theirs in zip(
        torch.autograd.grad(found.divergence, leaves),
        torch.autograd.grad(expected, leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@every_name
def test_logits_that_the_draft_makes_itself_give_the_same(name: str) -> None:
    top, its_head = kept(K), head()
    logits = its_head.logits(HIDDEN).detach().requires_grad_()
    found = chunked(name, top, logits, None)
    same = chunked(name, top, HIDDEN, its_head)
    torch.testing.assert_close(found.divergence, same.divergence)
    torch.testing.assert_close(found.alpha, same.alpha)
    expected = (WEIGHTS * by_autograd(name, top, logits)).sum()
    (mine,), (theirs,) = (torch.autograd.grad(one, logits) for one in (found.divergence, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if name != "lk_lambda"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Of LK-lambda they are not: its mixture is held fixed."""
    top = kept(K, P_LOGITS.double())
    logits = drawn(N, V, dtype=torch.float64).requires_grad_()
    sums = chunked(name, top, logits, None, weights=WEIGHTS.double())
    (gradient,) = torch.autograd.grad(sums.divergence, logits)
    step = 1e-6
    for row, column in [(0, 0), (3, 17), (11, int(top.ids[11, 0])), (22, int(top.ids[22, 5]))]:
        moved = []
        for sign in (step, -step):
            other = logits.detach().clone()
            other[row, column] += sign
            moved.append(chunked(name, top, other, None, weights=WEIGHTS.double()).divergence)
        slope = float((moved[0] - moved[1]) / (2 * step))
        assert float(gradient[row, column]) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@every_name
def test_the_whole_vocabulary_gives_the_whole_divergence(name: str) -> None:
    q_logits = drawn(N, V).requires_grad_()
    whole = (
        WEIGHTS * divergence(name).reference(P_LOGITS / TEMPERATURE, q_logits / TEMPERATURE)
    ).sum()
    found = chunked(name, kept(V), q_logits, None)
    torch.testing.assert_close(found.divergence, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found.alpha, acceptance(P_LOGITS / TEMPERATURE, q_logits.detach() / TEMPERATURE).sum()
    )
    (mine,), (theirs,) = (torch.autograd.grad(one, q_logits) for one in (found.divergence, whole))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@every_name
@pytest.mark.parametrize("k", [1, K, V])
def test_it_is_zero_and_flat_where_the_draft_is_the_target(name: str, k: int) -> None:
    q_logits = P_LOGITS.clone().requires_grad_()
    found = chunked(name, kept(k), q_logits, None)
    assert found.divergence.item() == pytest.approx(0.0, abs=1e-5)
    assert float(found.alpha) == pytest.approx(N, rel=1e-6)
    if name not in ("tvd", "lk_alpha", "lk_lambda"):  # these have a corner there
        (gradient,) = torch.autograd.grad(found.divergence, q_logits)
        assert float(gradient.abs().max()) < 1e-5


@every_name
def test_how_the_rest_is_spread_in_the_target_changes_nothing(name: str) -> None:
    """Only the mass of the lump is known; and q's own proportions in it are left as they are."""
    top = kept(K)
    spread = torch.rand(N, V, generator=torch.Generator().manual_seed(4)).scatter(
        1, top.ids.long(), 0.0
    )
    spread *= top.log_rest.exp()[:, None] / spread.sum(-1, keepdim=True)
    other = spread.scatter(1, top.ids.long(), top.log_probability.exp()).log() * TEMPERATURE
    q_logits = drawn(N, V)
    mine = chunked(name, top, q_logits, None)
    theirs = chunked(name, kept(K, other), q_logits, None)
    assert torch.equal(kept(K, other).ids, top.ids), "the k likeliest tokens are to stay the same"
    torch.testing.assert_close(mine.divergence, theirs.divergence, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", F_DIVERGENCES)
def test_it_is_the_whole_divergence_from_a_rest_in_the_drafts_proportions(name: str) -> None:
    """Value and gradient, the spread held fixed: so q learns nothing of the rest but its mass."""
    top, q_logits = kept(K), drawn(N, V).requires_grad_()
    q = torch.softmax(q_logits.detach() / TEMPERATURE, -1)
    others = q.scatter(1, top.ids.long(), 0.0)
    filled = others * (top.log_rest.exp() / others.sum(-1))[:, None]
    filled = filled.scatter(1, top.ids.long(), top.log_probability.exp())
    whole = (WEIGHTS * divergence(name).reference(filled.log(), q_logits / TEMPERATURE)).sum()
    found = chunked(name, top, q_logits, None)
    torch.testing.assert_close(found.divergence, whole, rtol=1e-5, atol=1e-5)
    (mine,), (theirs,) = (torch.autograd.grad(one, q_logits) for one in (found.divergence, whole))
    if name == "tvd":  # its slope inside the lump is a sign of nothing but rounding
        mine, theirs = (one.gather(1, top.ids.long()) for one in (mine, theirs))
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", BOUNDED)
def test_it_grows_with_k_up_to_the_whole_divergence(name: str) -> None:
    q_logits = drawn(N, V)
    whole = divergence(name).reference(P_LOGITS / TEMPERATURE, q_logits / TEMPERATURE)
    before = torch.zeros(N)
    for k in (1, 2, 5, 12, 39):
        found = values(name, k, q_logits)
        assert bool((found >= before - 1e-6).all())
        assert bool((found <= whole + 1e-6).all())
        before = found
    assert float(values(name, 1, q_logits).sum()) < 0.9 * float(whole.sum())


def test_alpha_is_an_upper_bound_that_falls_with_k() -> None:
    q_logits = drawn(N, V)
    true = acceptance(P_LOGITS / TEMPERATURE, q_logits / TEMPERATURE)
    tvd, how = divergence("tvd"), {"temperature": TEMPERATURE, "chunk_tokens": 4}
    rows = ModelRows(q_logits)
    bounds = [row_scores(rows, TopKDivergence(tvd, kept(k)), **how).alpha for k in (1, 5, 39, V)]  # type: ignore[arg-type]
    for larger, smaller in zip(bounds, [*bounds[1:], true], strict=True):
        assert bool((larger >= smaller - 1e-6).all())
    torch.testing.assert_close(bounds[-1], true)


@every_name
def test_a_sum_is_that_of_any_split_of_its_rows(name: str) -> None:
    top, its_head = kept(K), head()
    parts = [torch.arange(0, 9), torch.arange(9, N)]
    whole = chunked(name, top, HIDDEN, its_head)
    split = [chunked(name, top.of(r), HIDDEN[r], its_head, weights=WEIGHTS[r]) for r in parts]
    torch.testing.assert_close(whole.divergence, split[0].divergence + split[1].divergence)
    (expected,) = torch.autograd.grad(whole.divergence, its_head.weight)
    found = sum(torch.autograd.grad(one.divergence, its_head.weight)[0] for one in split)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_of_weight_zero_count_nowhere_even_if_they_are_nan() -> None:
    weights, hidden, its_head = WEIGHTS.clone(), HIDDEN.clone(), head()
    weights[3:9] = 0.0
    hidden[3:9] = torch.nan
    found = chunked("jsd", kept(K), hidden.requires_grad_(), its_head, weights=weights)
    assert found.tokens == N - 6
    assert found.divergence.isfinite() and found.alpha.isfinite()
    (gradient,) = torch.autograd.grad(found.divergence, hidden)
    assert bool((gradient[3:9] == 0).all()) and bool(gradient.isfinite().all())


@every_name
def test_masses_that_were_rounded_are_made_a_distribution_again(name: str) -> None:
    """Half precision moves every log-probability a little: q = p is as good as before."""
    top = kept(K)
    rounded = top._replace(log_probability=top.log_probability.half().float())
    found = chunked(name, rounded, P_LOGITS, None)
    assert float(found.divergence) == pytest.approx(0.0, abs=0.02 * N)
    assert float(found.alpha) <= N + 1e-4


@pytest.mark.parametrize("name", ["forward_kl", "jsd", "tvd", "lk_alpha", "lk_lambda"])
def test_a_draft_without_any_mass_in_the_rest_has_a_finite_loss(name: str) -> None:
    top = kept(K)
    q_logits = torch.full((N, V), -1e4).scatter(1, top.ids.long(), 0.0).requires_grad_()
    found = chunked(name, top, q_logits, None)
    assert found.divergence.isfinite()
    (gradient,) = torch.autograd.grad(found.divergence, q_logits)
    assert bool(gradient.isfinite().all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_name
def test_a_gpu_gives_the_same(name: str) -> None:
    its_head, top = head(biased=True), kept(K)
    assert its_head.bias is not None
    there = OutputHead(
        its_head.weight.detach().cuda().requires_grad_(), its_head.bias.detach().cuda()
    )
    expected = chunked(name, top, HIDDEN, its_head)
    found = chunked(name, top.to("cuda"), HIDDEN.cuda(), there, weights=WEIGHTS.cuda())
    torch.testing.assert_close(found.divergence.cpu(), expected.divergence, rtol=1e-4, atol=1e-4)
    (mine,) = torch.autograd.grad(found.divergence, there.weight)
    (theirs,) = torch.autograd.grad(expected.divergence, its_head.weight)
    torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-3, atol=1e-4)
