from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.speculation import random_source as chance_module
from distillspec.speculation.random_source import (
    GeneratorSource,
    RowSource,
    for_rows,
    passes,
    token_at,
)

ALMOST_ONE = 1.0 - 2.0**-53  # the largest float64 that torch.rand returns


def random_source(seed: int = 0) -> GeneratorSource:
    return GeneratorSource(torch.Generator().manual_seed(seed))


# --- trials ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_uniform_of_zero_does_not_accept_probability_zero(dtype: torch.dtype) -> None:
    uniform = torch.zeros(1, dtype=dtype)
    assert not passes(uniform, torch.zeros(1, dtype=dtype))
    assert passes(uniform, torch.full((1,), torch.finfo(dtype).tiny, dtype=dtype))


def test_probability_zero_is_never_accepted_and_probability_one_always() -> None:
    source = random_source()
    for _ in range(20):
        assert not source.accept(torch.zeros(10_000)).any()
        assert source.accept(torch.ones(10_000)).all()


def test_coins_are_independent_and_fall_as_often_as_they_should() -> None:
    probability = torch.tensor([0.1, 0.5, 0.9])
    source = random_source()
    falls = torch.stack([source.accept(probability) for _ in range(4000)]).double()
    assert torch.allclose(falls.mean(0), probability.double(), atol=0.03)
    assert torch.corrcoef(falls.T).triu(1).abs().max() < 0.06


# --- draws ---------------------------------------------------------------------------------------


@pytest.fixture(params=["in order", "in integers"])
def sums(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of summing, wherever these tests run: a CPU takes the first, a GPU the second."""
    if request.param == "in integers":
        monkeypatch.setattr(chance_module, "_sums_in_order", chance_module._sums_in_integers)


either_sums = pytest.mark.usefixtures("sums")


def distribution_over_grid(distribution: Tensor, grid: int) -> Tensor:
    uniforms = torch.arange(grid, dtype=torch.float64) / grid
    tokens = token_at(distribution.expand(grid, -1), uniforms)
    return torch.bincount(tokens, minlength=distribution.shape[-1]) / grid


@either_sums
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equally_spaced_uniforms_give_each_token_exactly_its_probability(
    dtype: torch.dtype,
) -> None:
    distribution = torch.tensor([0.0, 0.25, 0.0, 0.0, 0.5, 0.125, 0.125, 0.0], dtype=dtype)
    assert torch.equal(distribution_over_grid(distribution, 64), distribution.float())


@either_sums
@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.5, ALMOST_ONE])
def test_no_uniform_reaches_a_token_of_probability_zero(uniform: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for V in (2, 3, 1000, 4096):
        weights = torch.rand(32, V, generator=generator)
        weights *= torch.rand(32, V, generator=generator) < 0.5
        weights[:, 0] = weights[:, -1] = 0.0  # both ends, where rounding would show
        weights[:, V // 2] = 1e-3
        weights[:, -1] = 0.0
        distribution = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
        distribution[weights.sum(-1) == 0] = 1.0 / V
        tokens = token_at(distribution, torch.full((32,), uniform, dtype=torch.float64))
        assert (distribution.gather(1, tokens.unsqueeze(1)) > 0.0).all()


@either_sums
@pytest.mark.parametrize("uniform", [0.0, 0.3, ALMOST_ONE])
def test_a_one_hot_distribution_is_always_its_token(uniform: float) -> None:
    for token in (0, 17, 99):
        one_hot = torch.nn.functional.one_hot(torch.tensor(token), 100).float()
        assert token_at(one_hot, torch.tensor(uniform, dtype=torch.float64)) == token


@either_sums
def test_a_zero_probability_token_is_never_drawn_from_a_generator() -> None:
    distribution = torch.tensor([0.0, 1e-7, 0.0, 0.5, 0.5 - 1e-7, 0.0])
    tokens = random_source().draw(distribution.expand(200_000, -1))
    assert set(tokens.tolist()) <= {1, 3, 4}


@either_sums
def test_draws_follow_the_distribution() -> None:
    """Chi-square with 19 degrees of freedom: 43.8 is exceeded once in a thousand seeds."""
    distribution = torch.randn(20, generator=torch.Generator().manual_seed(1)).softmax(-1)
    draws = 50_000
    tokens = random_source().draw(distribution.expand(draws, -1))
    expected = distribution.double() * draws
    observed = torch.bincount(tokens, minlength=20).double()
    assert ((observed - expected) ** 2 / expected).sum() < 43.8


@either_sums
def test_weights_need_not_sum_to_one() -> None:
    weights = torch.tensor([0.0, 0.25, 0.5, 0.25]) * 3e-9
    uniforms = torch.tensor([0.0, 0.2, 0.3, 0.7, 0.8, ALMOST_ONE], dtype=torch.float64)
    assert token_at(weights.expand(6, -1), uniforms).tolist() == [1, 1, 2, 2, 3, 3]


@either_sums
def test_rows_are_drawn_from_their_own_distributions() -> None:
    rows = torch.eye(5)[[3, 0, 4]]
    assert random_source().draw(rows).tolist() == [3, 0, 4]
    assert random_source().draw(rows[0]).shape == ()


@either_sums
def test_one_seed_gives_one_stream_of_choices() -> None:
    distribution = torch.full((4, 50), 0.02)
    assert torch.equal(random_source(3).draw(distribution), random_source(3).draw(distribution))
    assert not torch.equal(random_source(3).draw(distribution), random_source(4).draw(distribution))


@either_sums
def test_a_vocabulary_of_a_quarter_million_is_drawn_to_its_last_token() -> None:
    V = 262_144
    distribution = torch.full((V,), 1.0 / V)
    assert token_at(distribution, torch.tensor(ALMOST_ONE, dtype=torch.float64)) == V - 1
    assert token_at(distribution, torch.tensor(0.5, dtype=torch.float64)) == V // 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_choices_on_a_gpu_do_not_wait_for_the_host_until_a_verdict_does() -> None:
    from distillspec.speculation.verify.token import verify_token

    device = torch.device("cuda")
    source = GeneratorSource(torch.Generator(device=device).manual_seed(0))
    p, q = torch.rand(2, 5, 4096, device=device).softmax(-1)
    tokens = torch.zeros(4, dtype=torch.long, device=device)
    verify_token(p, q[:4], tokens, source)
    torch.cuda.set_sync_debug_mode("error")
    try:
        source.draw(p)
        source.accept(p[:, 0])
        with pytest.raises(RuntimeError, match="synchroniz"):
            verify_token(p, q[:4], tokens, source)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_streams_of_rows_go_on_where_they_stood_when_rows_leave() -> None:
    weights = torch.rand(3, 50, generator=torch.Generator().manual_seed(1))
    streams = RowSource.seeded([7, 8, 9], 4, torch.device("cpu"))
    drawn = torch.stack([streams.draw(weights) for _ in range(4)])
    parted = RowSource.seeded([7, 8, 9], 4, torch.device("cpu"))
    first = torch.stack([parted.draw(weights) for _ in range(2)])
    rows = torch.tensor([2, 0])
    left = for_rows(parted, rows)
    last = torch.stack([left.draw(weights[rows]) for _ in range(2)])
    assert torch.equal(first, drawn[:2])
    assert torch.equal(last, drawn[2:, rows])
    source = RowSource.seeded([7, 8], 1, torch.device("cpu")).accept(torch.tensor([0.0, 1.0]))
    assert source.tolist() == [False, True]


def test_a_row_draws_its_distribution() -> None:
    """Frequencies of 4,000 rows' first draws: a standard error is below 0.008."""
    weights = torch.tensor([1.0, 2.0, 0.0, 5.0])
    random_source = RowSource.seeded(range(4000), 1, torch.device("cpu"))
    shares = random_source.draw(weights.expand(4000, -1)).bincount(minlength=4) / 4000
    torch.testing.assert_close(shares, weights / 8.0, atol=0.03, rtol=0.0)
