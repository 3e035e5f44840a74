from __future__ import annotations

import math
import pickle

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy, check_finite

ALL = [
    SamplingPolicy(0.0),
    SamplingPolicy(1.0),
    SamplingPolicy(0.3),
    SamplingPolicy(1.0, top_k=3),
    SamplingPolicy(0.7, nucleus=0.8),
    SamplingPolicy(1.5, top_k=5, nucleus=0.5),
]


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rows_sum_to_one_in_float32_or_better(policy: SamplingPolicy, dtype: torch.dtype) -> None:
    logits = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0)).to(dtype) * 4
    distribution = policy.distribution(logits)
    assert distribution.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert distribution.shape == logits.shape
    assert (distribution >= 0.0).all()
    assert torch.allclose(distribution.sum(-1), torch.ones(2, 3, dtype=distribution.dtype))


@pytest.mark.parametrize("policy", ALL)
def test_rows_do_not_depend_on_their_neighbours(policy: SamplingPolicy) -> None:
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(1))
    alone = torch.stack([policy.distribution(row) for row in logits])
    assert torch.equal(policy.distribution(logits), alone)


@pytest.mark.parametrize("policy", ALL)
def test_the_logits_are_left_as_they_were(policy: SamplingPolicy) -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(2))
    before = logits.clone()
    policy.distribution(logits)
    policy.untempered(logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("policy", ALL)
def test_a_forbidden_token_keeps_probability_zero(policy: SamplingPolicy) -> None:
    logits = torch.tensor([-torch.inf, 1.0, -torch.inf, 0.5, 0.2])
    distribution = policy.distribution(logits)
    assert distribution[0] == distribution[2] == 0.0
    assert torch.isfinite(distribution).all()


def test_temperature_zero_is_one_hot_at_the_lowest_index_of_the_maximum() -> None:
    policy = SamplingPolicy(0.0)
    assert policy.distribution(torch.tensor([1.0, 3.0, 3.0, 2.0])).tolist() == [0, 1, 0, 0]
    generator = torch.Generator().manual_seed(0)
    ties = torch.randint(0, 3, (64, 4096), generator=generator).to(torch.bfloat16)
    first = [row.index(max(row)) for row in ties.tolist()]
    one_hot = policy.distribution(ties)
    assert one_hot.argmax(-1).tolist() == first
    assert torch.equal(one_hot.sum(-1), torch.ones(64))


@pytest.mark.parametrize("policy", ALL)
def test_a_token_is_drawn_from_the_distribution_it_comes_with(policy: SamplingPolicy) -> None:
    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(5)) * 2
    sources = [GeneratorSource(torch.Generator().manual_seed(6)) for _ in range(3)]
    token, distribution = policy.draw_with_distribution(logits, sources[0])
    assert torch.equal(distribution, policy.distribution(logits))
    assert torch.equal(token, sources[1].draw(distribution))
    assert torch.equal(policy.draw(logits, sources[2]), token)


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    weights = [math.exp(value / 0.5) for value in (0.0, 1.0, 2.0)]
    expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    assert torch.allclose(SamplingPolicy(0.5).distribution(logits), expected, atol=1e-15)


def test_the_temperature_comes_before_the_filters() -> None:
    """Squared, 0.4 : 0.3 : 0.2 : 0.1 become 16 : 9 : 4 : 1, of which the first two have 5/6."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    of_two = torch.tensor([0.64, 0.36, 0.0, 0.0], dtype=torch.float64)
    for policy in (SamplingPolicy(0.5, top_k=2), SamplingPolicy(0.5, nucleus=0.8)):
        assert torch.allclose(policy.distribution(logits), of_two, atol=1e-15)
    assert SamplingPolicy(1.0, nucleus=0.8).distribution(logits)[2] > 0.0


def test_a_tiny_temperature_is_nearly_greedy_and_finite() -> None:
    assert SamplingPolicy(1e-4).distribution(torch.tensor([30.0, 31.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "policy",
    [SamplingPolicy(0.0), SamplingPolicy(), SamplingPolicy(0.7, 3), SamplingPolicy(1.0, None, 0.5),
     SamplingPolicy(1.0, 3, 0.5), SamplingPolicy(0.0, 3, 0.5)],
)  # fmt: skip
def test_logits_that_give_no_distribution_are_found_whichever_they_are(
    policy: SamplingPolicy, dtype: torch.dtype, value: float
) -> None:
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    for position in range(6):
        logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(position)).to(dtype)
        logits[0, (position + 1) % 6] = -torch.inf  # a masked token is no fault
        logits[1, position] = value
        if value == -torch.inf:
            logits[1] = value
        p, drawn = policy.distribution(logits), policy.draw_with_doubt(logits, random_source)
        tokens, q = policy.draw_with_distribution(logits, random_source)
        assert int(torch.cat([drawn.token, tokens]).max()) < 6
        for doubt in (p[..., 0], q[..., 0], drawn.doubt):
            check_finite("the draft", doubt[0])
            with pytest.raises(DistillSpecError, match="logits of the draft are NaN or infinite"):
                check_finite("the draft", doubt)


def test_top_k_keeps_the_k_most_probable_and_renormalises() -> None:
    logits = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
    distribution = SamplingPolicy(top_k=2).distribution(logits)
    assert torch.allclose(distribution, torch.tensor([0.0, 4 / 7, 3 / 7, 0.0]))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_ties_at_the_kth_logit_go_to_the_lowest_indices(k: int) -> None:
    logits = torch.tensor([0.0, 1.0, 1.0, 5.0, 1.0])
    tokens = SamplingPolicy(top_k=k).distribution(logits).nonzero().flatten().tolist()
    assert tokens == sorted([3, 1, 2, 4, 0][:k])


def test_the_nucleus_is_the_smallest_set_with_the_mass() -> None:
    logits = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1], dtype=torch.float64).log()
    for mass, tokens in ((0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.71, [1, 2, 3])):
        distribution = SamplingPolicy(nucleus=mass).distribution(logits)
        assert distribution.nonzero().flatten().tolist() == tokens
        assert distribution.sum() == pytest.approx(1.0)


def test_ties_at_the_edge_of_the_nucleus_go_to_the_lowest_indices() -> None:
    distribution = SamplingPolicy(nucleus=0.5).distribution(torch.zeros(4))
    assert distribution.tolist() == [0.5, 0.5, 0.0, 0.0]


def test_the_nucleus_is_taken_of_what_top_k_leaves() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    distribution = SamplingPolicy(top_k=2, nucleus=0.5).distribution(logits)
    assert distribution.tolist() == [1.0, 0.0, 0.0, 0.0]  # 4/7 of what is left, not 0.4


def test_a_nucleus_of_one_or_a_k_of_all_filters_nothing() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(3)) * 8
    plain = SamplingPolicy().distribution(logits)
    assert torch.equal(SamplingPolicy(nucleus=1.0).distribution(logits), plain)
    assert torch.equal(SamplingPolicy(top_k=50).distribution(logits), plain)


def test_stop_rules_see_the_soft_distribution_even_at_temperature_zero() -> None:
    logits = torch.randn(10, generator=torch.Generator().manual_seed(4))
    assert torch.equal(SamplingPolicy(0.0).untempered(logits), logits.softmax(-1))
    filtered = SamplingPolicy(2.0, top_k=1, nucleus=0.1)
    assert torch.equal(filtered.untempered(logits), (logits / 2.0).softmax(-1))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"nucleus": 0.0}, "nucleus"),
        ({"nucleus": 1.1}, "nucleus"),
    ],
)
def test_a_value_out_of_range_is_named(values: dict[str, float], name: str) -> None:
    with pytest.raises(DistillSpecError, match=f"{name} is .*, out of range"):
        SamplingPolicy(**values)  # type: ignore[arg-type]


def test_a_stop_rule_and_the_draw_after_it_share_one_softmax() -> None:
    policy = SamplingPolicy(0.7)
    first, second = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    assert policy.untempered(first) is policy.distribution(first)
    assert torch.equal(policy.distribution(second), (second / 0.7).softmax(-1))
    assert torch.equal(policy.untempered(first), (first / 0.7).softmax(-1))


def test_policies_with_the_same_settings_are_equal_after_any_use() -> None:
    policy = SamplingPolicy(0.7)
    policy.distribution(torch.zeros(3))
    assert policy == SamplingPolicy(0.7)
    assert hash(policy) == hash(SamplingPolicy(0.7))


def test_a_policy_goes_to_another_process_without_the_logits_it_saw_last() -> None:
    policy = SamplingPolicy(0.7, top_k=3)
    policy.untempered(torch.randn(1000))
    sent = pickle.dumps(policy)
    assert len(sent) < 500
    assert pickle.loads(sent) == policy
