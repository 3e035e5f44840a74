"""Sums and gradients in chunks are those of all logits at once, with the memory of a chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from distillspec.divergence.acceptance import acceptance
from distillspec.divergence.comparison import TargetDivergence, TokenAcceptance, TokenLikelihood
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import RowScores, row_scores, rows_that_count, weighted_sums
from distillspec.divergence.table import DIVERGENCES, Divergence, divergence

N, V, TARGET_H, DRAFT_H = 23, 40, 7, 5
TEMPERATURE = 0.7

every_name = pytest.mark.parametrize("name", DIVERGENCES)


def divergence_sums(
    measure: Divergence,
    target: Tensor,
    target_head: OutputHead | None,
    draft: Tensor,
    draft_head: OutputHead | None,
    **how: Any,
) -> DivergenceSums:
    """From hidden states with their heads, or from logits where these are None."""
    compared = TargetDivergence(measure, ModelRows(target, target_head))
    return weighted_sums(ModelRows(draft, draft_head), compared, **how)


def likelihood_sums(
    draft: Tensor, head: OutputHead | None, tokens: Tensor, *, temperature: float = 1.0, **how: Any
) -> DivergenceSums:
    compared = TokenLikelihood(tokens)
    return weighted_sums(ModelRows(draft, head), compared, temperature=temperature, **how)


def scores(
    against: Divergence | Tensor,
    target: Tensor,
    target_head: OutputHead | None,
    draft: Tensor,
    draft_head: OutputHead | None,
    **how: Any,
) -> RowScores:
    """Each row's divergence, or the acceptance of tokens."""
    rows = ModelRows(target, target_head)
    compared: TargetDivergence | TokenAcceptance
    if isinstance(against, Tensor):
        compared = TokenAcceptance(against, rows)
    else:
        compared = TargetDivergence(against, rows)
    return row_scores(ModelRows(draft, draft_head), compared, **how)


class Sides(NamedTuple):
    """N positions of a target and a draft; the draft's tensors are leaves."""

    target_hidden: Tensor
    target_head: OutputHead
    draft_hidden: Tensor
    draft_head: OutputHead

    def leaves(self) -> list[Tensor]:
        head = self.draft_head
        return [each for each in (self.draft_hidden, head.weight, head.bias) if each is not None]

    def whole(self, name: str, weights: Tensor, temperature: float) -> DivergenceSums:
        """Unchunked, by autograd: all logits at once."""
        p = self.target_head.logits(self.target_hidden) / temperature
        q = self.draft_head.logits(self.draft_hidden) / temperature
        value = (divergence(name).reference(p, q) * weights).sum()
        counts = weights != 0
        return DivergenceSums(value, acceptance(p, q.detach())[counts].sum(), counts.sum())

    def chunked(
        self, name: str, weights: Tensor, temperature: float, chunk_tokens: int
    ) -> DivergenceSums:
        return divergence_sums(
            divergence(name),
            *self,
            temperature=temperature,
            weights=weights,
            chunk_tokens=chunk_tokens,
        )

    def rows(self, rows: slice) -> Sides:
        return self._replace(
            target_hidden=self.target_hidden[rows], draft_hidden=self.draft_hidden[rows]
        )


def sides(
    dtype: torch.dtype = torch.float32, *, biased: bool = False, rows: int = N, **kind: Any
) -> Sides:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    return Sides(
        drawn(rows, TARGET_H),
        OutputHead(0.5 * drawn(V, TARGET_H), drawn(V) if biased else None, **kind),
        drawn(rows, DRAFT_H).requires_grad_(),
        OutputHead(
            (0.5 * drawn(V, DRAFT_H)).requires_grad_(),
            drawn(V).requires_grad_() if biased else None,
            **kind,
        ),
    )


def weights_of(rows: int = N) -> Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(1)) + 0.5


def gradients(sums: DivergenceSums, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(sums.divergence / 7.0, leaves)


def assert_equal_sums(found: DivergenceSums, expected: DivergenceSums, tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every_name
@pytest.mark.parametrize("chunk_tokens", [1, 6, 1000])
@pytest.mark.parametrize(
    "kind",
    [{}, {"biased": True}, {"scale": 0.6}, {"biased": True, "scale": 1.5, "softcap": 2.0}],
    ids=["plain", "bias", "scale", "softcap"],
)
def test_from_hidden_states_chunked_equals_unchunked(
    name: str, chunk_tokens: int, kind: dict[str, Any]
) -> None:
    both, weights = sides(**kind), weights_of()
    found = both.chunked(name, weights, TEMPERATURE, chunk_tokens)
    expected = both.whole(name, weights, TEMPERATURE)
    assert_equal_sums(found, expected, 1e-6)
    torch.testing.assert_close(
        gradients(found, both.leaves()),
        gradients(expected, both.leaves()),
        rtol=1e-5,
        atol=1e-6,
    )


@every_name
@pytest.mark.parametrize("chunk_tokens", [1, 6, 1000])
@pytest.mark.parametrize("temperature", [1.0, TEMPERATURE])
def test_from_logits_chunked_equals_unchunked(
    name: str, chunk_tokens: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(2)
    p, q = torch.randn(2, N, V, generator=generator)
    weights, leaf = weights_of(), q.clone().requires_grad_()
    expected = (divergence(name).reference(p / temperature, leaf / temperature) * weights).sum()
    (expected_gradient,) = torch.autograd.grad(expected, leaf)
    found = divergence_sums(
        divergence(name),
        p,
        None,
        leaf,
        None,
        temperature=temperature,
        weights=weights,
        chunk_tokens=chunk_tokens,
    )
    alpha = acceptance(p / temperature, q / temperature).sum()
    assert_equal_sums(found, DivergenceSums(expected, alpha, torch.tensor(N)), 1e-6)
    (gradient,) = torch.autograd.grad(found.divergence, leaf)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
    assert torch.equal(leaf.detach(), q), "the logits given are not written to"


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if name != "lk_lambda"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Of LK-lambda they are not: its mixture is held fixed."""
    both = sides(torch.float64, biased=True, scale=0.9, softcap=3.0, rows=5)
    weights = weights_of(5).double()
    found = gradients(both.chunked(name, weights, TEMPERATURE, 2), both.leaves())
    step = 1e-6
    for leaf, gradient in zip(both.leaves(), found, strict=True):
        for place in range(0, leaf.numel(), 7):
            values = []
            for move in (step, -step):
                with torch.no_grad():
                    leaf.view(-1)[place] += move
                    values.append(both.chunked(name, weights, TEMPERATURE, 2).divergence / 7.0)
                    leaf.view(-1)[place] -= move
            slope = (values[0] - values[1]) / (2 * step)
            torch.testing.assert_close(gradient.view(-1)[place], slope, rtol=1e-5, atol=1e-8)


@every_name
@pytest.mark.parametrize("cuts", [(0, 1, N), (0, 4, 11, 12, N), (0, N, N)])
def test_any_split_of_a_batch_adds_up_to_the_whole(name: str, cuts: tuple[int, ...]) -> None:
    both, weights = sides(), weights_of()
    whole = both.chunked(name, weights, TEMPERATURE, 8)
    parts = [
        both.rows(slice(first, last)).chunked(name, weights[first:last], TEMPERATURE, 5)
        for first, last in itertools.pairwise(cuts)
    ]
    added = DivergenceSums(*(sum(each[1:], start=each[0]) for each in zip(*parts, strict=True)))
    assert_equal_sums(added, whole, 1e-6)
    torch.testing.assert_close(
        gradients(added, both.leaves()), gradients(whole, both.leaves()), rtol=1e-5, atol=1e-6
    )


def test_cross_entropy_equals_torchs_own_on_both_paths() -> None:
    both, weights = sides(biased=True), weights_of()
    tokens = torch.arange(N) % V
    logits = both.draft_head.logits(both.draft_hidden)
    expected = (F.cross_entropy(logits, tokens, reduction="none") * weights).sum()
    from_hidden = likelihood_sums(
        both.draft_hidden, both.draft_head, tokens, weights=weights, chunk_tokens=6
    )
    from_logits = likelihood_sums(logits, None, tokens, weights=weights, chunk_tokens=6)
    expected_gradients = torch.autograd.grad(expected, both.leaves(), retain_graph=True)
    for found in (from_hidden, from_logits):
        torch.testing.assert_close(found.divergence, expected, rtol=1e-6, atol=1e-6)
        assert found.alpha.isnan() and found.tokens == N
        torch.testing.assert_close(
            torch.autograd.grad(found.divergence, both.leaves()), expected_gradients
        )


class Rows(NamedTuple):
    """A loss of N rows with leaves whose rows those are, on one of the paths."""

    loss: Callable[[Tensor], DivergenceSums]
    rowwise: Tensor
    shared: list[Tensor]


def paths(poison: slice) -> Iterator[Rows]:
    """Every path, with NaN in the rows `poison`."""
    both = sides()
    with torch.no_grad():
        both.draft_hidden[poison] = torch.nan
        both.target_hidden[poison] = torch.nan
    q = both.draft_head.logits(both.draft_hidden).detach().requires_grad_()
    p = both.target_head.logits(both.target_hidden)
    tokens = torch.arange(N) % V
    measure = divergence("forward_kl")
    weight = [both.draft_head.weight]
    yield Rows(
        lambda w: both.chunked("forward_kl", w, 1.0, 6),
        both.draft_hidden,
        weight,
    )
    yield Rows(
        lambda w: likelihood_sums(
            both.draft_hidden, both.draft_head, tokens, weights=w, chunk_tokens=6
        ),
        both.draft_hidden,
        weight,
    )
    yield Rows(
        lambda w: divergence_sums(
            measure, p, None, q, None, temperature=1.0, weights=w, chunk_tokens=6
        ),
        q,
        [],
    )
    yield Rows(lambda w: likelihood_sums(q, None, tokens, weights=w, chunk_tokens=6), q, [])


@pytest.mark.parametrize("path", range(4), ids=["hidden", "hidden nll", "logits", "logits nll"])
def test_rows_of_weight_zero_count_nowhere_even_if_they_are_nan(path: int) -> None:
    left_out = slice(3, 9)
    rows = list(paths(left_out))[path]
    weights = weights_of()
    weights[left_out] = 0.0
    sums = rows.loss(weights)
    assert sums.tokens == N - 6
    assert sums.divergence.isfinite()
    leaf, *shared = torch.autograd.grad(sums.divergence, [rows.rowwise, *rows.shared])
    assert torch.equal(leaf[left_out], torch.zeros_like(leaf[left_out]))
    assert bool((leaf[:3] != 0).any()) and bool((leaf[9:] != 0).any())
    assert all(each.isfinite().all() for each in [leaf, *shared])


@pytest.mark.parametrize("path", range(4), ids=["hidden", "hidden nll", "logits", "logits nll"])
def test_a_nan_in_a_row_that_counts_is_told(path: int) -> None:
    rows = list(paths(slice(3, 4)))[path]
    assert rows.loss(torch.ones(N)).divergence.isnan()


@pytest.mark.parametrize("path", range(4), ids=["hidden", "hidden nll", "logits", "logits nll"])
def test_a_batch_without_any_row_that_counts_gives_zeros(path: int) -> None:
    rows = list(paths(slice(0, 0)))[path]
    sums = rows.loss(torch.zeros(N))
    assert sums.divergence == 0.0 and sums.tokens == 0
    for gradient in torch.autograd.grad(sums.divergence, [rows.rowwise, *rows.shared]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_no_rows_at_all_give_zeros() -> None:
    both = sides(biased=True, rows=0)
    sums = both.chunked("jsd", torch.ones(0), 1.0, 4)
    assert [each.item() for each in sums] == [0.0, 0.0, 0]
    for gradient in gradients(sums, both.leaves()):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@every_name
def test_tokens_forbidden_by_both_biases_get_no_gradient_and_no_nan(name: str) -> None:
    both = sides(biased=True)
    assert both.target_head.bias is not None and both.draft_head.bias is not None
    with torch.no_grad():
        both.target_head.bias[-3:] = -torch.inf
        both.draft_head.bias[-3:] = -torch.inf
    trimmed = Sides(
        both.target_hidden,
        OutputHead(both.target_head.weight[:-3], both.target_head.bias[:-3]),
        both.draft_hidden,
        OutputHead(both.draft_head.weight[:-3], both.draft_head.bias[:-3]),
    )
    found = both.chunked(name, weights_of(), 1.0, 6)
    expected = trimmed.chunked(name, weights_of(), 1.0, 6)
    assert_equal_sums(found, expected, 1e-6)
    torch.testing.assert_close(
        gradients(found, both.leaves()), gradients(expected, both.leaves()), rtol=1e-5, atol=1e-6
    )


@every_name
def test_autocast_multiplies_in_bfloat16_and_keeps_float32_elsewhere(name: str) -> None:
    both, weights = sides(), weights_of()
    rounded = both._replace(
        target_hidden=both.target_hidden.bfloat16(),
        draft_hidden=both.draft_hidden.detach().bfloat16().requires_grad_(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = rounded.chunked(name, weights, 1.0, 6)
        own = both.chunked(name, weights, 1.0, 6)
    exact = both.whole(name, weights, 1.0)
    assert sums.divergence.dtype == torch.float32
    torch.testing.assert_close(sums.divergence, exact.divergence, rtol=2e-2, atol=0)
    torch.testing.assert_close(own.divergence, exact.divergence, rtol=2e-2, atol=0)
    # Rounding flips signs of q - p, on which the slope of the total variation depends.
    tolerance = 0.2 if name in ("tvd", "lk_alpha", "lk_lambda") else 0.03
    expected = gradients(exact, both.leaves())
    for found in (gradients(sums, rounded.leaves()), gradients(own, both.leaves())):
        for a, b in zip(found, expected, strict=True):
            assert (a.float() - b).norm() < tolerance * b.norm()
    assert gradients(rounded.chunked(name, weights, 1.0, 6), rounded.leaves())[0].dtype == (
        torch.bfloat16
    )


def test_a_bfloat16_model_needs_no_autocast() -> None:
    both = sides(torch.bfloat16)
    sums = both.chunked("forward_kl", weights_of(), 1.0, 6)
    assert sums.divergence.dtype == torch.float32
    for leaf, gradient in zip(both.leaves(), gradients(sums, both.leaves()), strict=True):
        assert gradient.dtype == leaf.dtype == torch.bfloat16


def test_a_head_tied_to_the_embedding_gets_both_gradients() -> None:
    both, embedding, weights = sides(), nn.Embedding(V, DRAFT_H), weights_of()
    hidden = embedding(torch.arange(N) % V).tanh()
    tied = both._replace(draft_hidden=hidden, draft_head=OutputHead(embedding.weight))
    found, expected = (
        torch.autograd.grad(sums.divergence, embedding.weight, retain_graph=True)
        for sums in (
            tied.chunked("reverse_kl", weights, 1.0, 6),
            tied.whole("reverse_kl", weights, 1.0),
        )
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Draft(nn.Module):
    """A draft whose forward ends in the loss, as a data-parallel wrapper wants it."""

    def __init__(self, both: Sides) -> None:
        super().__init__()
        self.both = both
        self.body = nn.Linear(DRAFT_H, DRAFT_H)
        self.head = nn.Linear(DRAFT_H, V)

    def forward(self) -> Tensor:
        hidden = self.body(self.both.draft_hidden.detach())
        head = OutputHead(self.head.weight, self.head.bias)
        moved = self.both._replace(draft_hidden=hidden, draft_head=head)
        return moved.chunked("jsd", weights_of(), 1.0, 6).divergence


def test_a_data_parallel_wrapper_sees_every_gradient(tmp_path: Path) -> None:
    draft = Draft(sides())
    expected = torch.autograd.grad(draft(), list(draft.parameters()))
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(draft)().backward()
    finally:
        torch.distributed.destroy_process_group()
    found = tuple(each.grad for each in draft.parameters())
    torch.testing.assert_close(found, expected)


def test_what_needs_no_gradient_gets_none() -> None:
    both = sides()
    frozen = both._replace(draft_head=OutputHead(both.draft_head.weight.detach()))
    sums = frozen.chunked("jsd", weights_of(), 1.0, 6)
    expected = frozen.whole("jsd", weights_of(), 1.0)
    leaves = [both.draft_hidden]
    torch.testing.assert_close(
        gradients(sums, leaves), gradients(expected, leaves), rtol=1e-5, atol=1e-6
    )


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor made under it, and how many calls were matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, (tuple, list)) else [result]
        for each in made:
            if isinstance(each, Tensor):
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        return result


@every_name
@pytest.mark.parametrize("autocast", [False, True])
def test_nothing_larger_than_a_chunks_logits_is_ever_made(name: str, autocast: bool) -> None:
    rows, chunk = 200, 10
    both = sides(rows=rows)
    with Largest() as seen, torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        sums = both.chunked(name, weights_of(rows), TEMPERATURE, chunk)
        sums.divergence.backward()
    bytes_of_hidden = 4 * rows * TARGET_H
    assert max(4 * chunk * V, 4 * V * TARGET_H, bytes_of_hidden) < 4 * rows * V / 4
    assert seen.bytes <= max(4 * chunk * V, 4 * V * TARGET_H, bytes_of_hidden)


@pytest.mark.parametrize(
    ("recorded", "products_a_chunk"), [(True, 4), (False, 2)], ids=["training", "validation"]
)
def test_a_chunk_costs_two_products_and_two_more_for_its_gradient(
    recorded: bool, products_a_chunk: int
) -> None:
    both = sides(rows=30)
    with Largest() as seen, torch.set_grad_enabled(recorded):
        sums = both.chunked("forward_kl", weights_of(30), 1.0, 10)
    assert seen.products == 3 * products_a_chunk
    assert sums.divergence.requires_grad == recorded


def test_given_logits_are_not_kept_for_the_backward() -> None:
    rows, chunk = 200, 10
    p, q = torch.randn(2, rows, V, generator=torch.Generator().manual_seed(0))
    leaf = q.requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda each: kept.append(each) or each, lambda each: each
    ):
        divergence_sums(
            divergence("tvd"),
            p,
            None,
            leaf,
            None,
            temperature=1.0,
            weights=weights_of(rows),
            chunk_tokens=chunk,
        )
    assert not kept


@every_name
@pytest.mark.parametrize("chunk_tokens", [1, 6, 1000])
def test_scores_are_those_of_every_row(name: str, chunk_tokens: int) -> None:
    both = sides(biased=True, scale=1.5, softcap=2.0)
    p = both.target_head.logits(both.target_hidden)
    q = both.draft_head.logits(both.draft_hidden).detach()
    how = {"temperature": TEMPERATURE, "chunk_tokens": chunk_tokens}
    expected = divergence(name).reference(p / TEMPERATURE, q / TEMPERATURE)
    for found in (
        scores(divergence(name), *both, **how),
        scores(divergence(name), p, None, q, None, **how),
    ):
        torch.testing.assert_close(found.value, expected, rtol=1e-5, atol=1e-6)
        alpha = acceptance(p / TEMPERATURE, q / TEMPERATURE)
        torch.testing.assert_close(found.alpha, alpha, rtol=1e-5, atol=1e-6)
        assert not found.value.requires_grad


def test_a_tokens_keep_chance_is_below_one_where_the_target_likes_it_better() -> None:
    both = sides()
    tokens = torch.arange(N) % V
    p = both.target_head.logits(both.target_hidden).softmax(-1)
    q = both.draft_head.logits(both.draft_hidden).detach().softmax(-1)
    expected = (q / p).clamp(max=1.0)[torch.arange(N), tokens]
    found = scores(tokens, *both, temperature=1.0, chunk_tokens=4)
    torch.testing.assert_close(found.value, expected, rtol=1e-5, atol=1e-6)
    preferred = (p > q)[torch.arange(N), tokens]
    assert (found.value < 1.0).tolist() == preferred.tolist()
    assert 0 < int(preferred.sum()) < N


def test_a_broken_model_is_no_perfect_draft() -> None:
    p, q = torch.randn(2, 3, V)
    p[1], q[2] = float("nan"), float("nan")
    tokens = torch.zeros(3, dtype=torch.long)
    found = scores(tokens, p, None, q, None, temperature=1.0, chunk_tokens=2).value
    assert found.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("temperature", [1.0, TEMPERATURE])
def test_cross_entropy_at_a_temperature_is_of_the_tempered_distribution(temperature: float) -> None:
    both, weights = sides(), weights_of() - 1.0  # some are negative
    tokens = torch.arange(N) % V
    q = both.draft_head.logits(both.draft_hidden)
    expected = (F.cross_entropy(q / temperature, tokens, reduction="none") * weights).sum()
    found = likelihood_sums(
        both.draft_hidden,
        both.draft_head,
        tokens,
        weights=weights,
        chunk_tokens=6,
        temperature=temperature,
    )
    torch.testing.assert_close(found.divergence, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradients(found, both.leaves()),
        torch.autograd.grad(expected / 7.0, both.leaves()),
        rtol=1e-5,
        atol=1e-6,
    )


# --- the pass itself ---

FEW = 7
TOKENS = torch.arange(FEW) % V
HEAD = OutputHead(torch.randn(V, DRAFT_H, generator=torch.Generator().manual_seed(1)))


def hidden() -> Tensor:
    return torch.randn(FEW, DRAFT_H, generator=torch.Generator().manual_seed(0)).requires_grad_()


def sums(leaf: Tensor, weights: Tensor, chunk_rows: int) -> DivergenceSums:
    return likelihood_sums(
        leaf, HEAD, TOKENS, weights=weights, temperature=0.7, chunk_tokens=chunk_rows
    )


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_each_row_that_counts_is_scored_once_by_its_weight(chunk_rows: int) -> None:
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0, 3.0])
    leaf = hidden()
    found = sums(leaf, weights, chunk_rows)
    log_q = torch.log_softmax(HEAD.logits(leaf) / 0.7, -1)
    expected = -(weights * log_q[torch.arange(FEW), TOKENS]).sum()
    torch.testing.assert_close(found.divergence, expected)
    assert found.tokens == 5
    mine, theirs = (torch.autograd.grad(one, leaf)[0] for one in (found.divergence, expected))
    torch.testing.assert_close(mine, theirs)


def test_hidden_states_and_their_logits_give_the_same_sums() -> None:
    weights, leaf = torch.ones(FEW), hidden()
    found = likelihood_sums(
        HEAD.logits(leaf), None, TOKENS, weights=weights, temperature=0.7, chunk_tokens=3
    )
    torch.testing.assert_close(found.divergence, sums(leaf, weights, 3).divergence)


def test_scores_are_of_each_row_and_need_no_gradient() -> None:
    logits = HEAD.logits(hidden())
    found = row_scores(ModelRows(logits), TokenLikelihood(TOKENS), temperature=0.7, chunk_tokens=3)
    log_q = torch.log_softmax(logits / 0.7, -1)
    torch.testing.assert_close(found.value, -log_q[torch.arange(FEW), TOKENS])
    assert not found.value.requires_grad


def test_a_second_backward_is_refused_rather_than_wrong() -> None:
    found = sums(hidden(), torch.ones(FEW), 3)
    found.divergence.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="second backward"):
        found.divergence.backward()  # type: ignore[no-untyped-call]


def test_no_index_is_made_where_all_rows_count() -> None:
    assert rows_that_count(torch.ones(3)) is None
    found = rows_that_count(torch.tensor([0.0, 1.0, 0.0, 2.0]))
    assert found is not None and found.tolist() == [1, 3]
