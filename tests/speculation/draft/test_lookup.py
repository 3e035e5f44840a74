from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.lookup import LookupDraft, continuation
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.token import verify_token
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import Branches, HistoryRunner, context_of, walk
from tests.speculation.decoding.test_engine import (
    counting_table,
    distance_from_the_target,
    random_pair,
    random_table,
    seeded,
    standard,
)


@pytest.mark.parametrize(
    ("text", "longest", "gamma", "found"),
    [
        ([1, 2, 3, 4, 1, 2], 3, 2, [3, 4]),
        ([1, 2, 3, 4, 1, 2], 3, 9, [3, 4, 1, 2]),  # no further than the text goes
        ([7, 2, 5, 1, 2, 6, 2, 8, 1, 2], 2, 1, [6]),  # the longer end, not the later token
        ([7, 2, 5, 1, 2, 6, 2, 8, 1, 2], 1, 1, [8]),  # looked for with one token: the latest
        ([4, 4, 4, 4], 3, 2, [4]),  # the longest end first: one token follows it
        ([4, 4, 4, 4], 1, 2, [4, 4]),  # then the most tokens
        ([1, 2, 3], 3, 4, []),
        ([5], 3, 4, []),
        ([1, 1], 3, 0, []),
    ],
)
def test_what_followed_the_longest_end_that_stood_there_before(
    text: list[int], longest: int, gamma: int, found: list[int]
) -> None:
    assert continuation(text, longest, gamma) == found


def test_against_the_definition_on_random_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        text = torch.randint(3, (12,), generator=generator).tolist()
        drafted = continuation(text, 3, 4)
        lengths = [n for n in (3, 2, 1) if _places(text, n)]
        follow = [
            text[position : position + 4]
            for position in (_places(text, lengths[0]) if lengths else [])
        ]
        assert drafted == max(reversed(follow), key=len, default=[])


def _places(text: list[int], n: int) -> list[int]:
    """Where the last n tokens ended before, and what follows begins."""
    return [at for at in range(n, len(text)) if text[at - n : at] == text[-n:]]


def test_no_model_is_run_and_the_draft_is_certain() -> None:
    runner = BigramRunner(torch.zeros(5, 5))
    runner.feed(torch.tensor([[1, 2, 3, 1]]))
    proposal = LookupDraft(3).propose(context_of(runner, [2], Branches()), 2)
    assert (proposal.tokens.tolist(), proposal.steps, proposal.drafted) == ([3, 1], 0, 2)
    assert proposal.q.tolist() == [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert runner.length == 4


def test_it_needs_no_model_at_all() -> None:
    target = BigramRunner(counting_table(4))
    lookup = standard(3, draft=LookupDraft(2))
    decoder = SpeculativeDecoder(target, {}, lookup, SamplingPolicy(), seeded())
    generation = decoder.decode(torch.tensor([0, 1]), max_new_tokens=14)
    assert generation.tokens == [(2 + i) % 4 for i in range(14)]
    assert [record.drafted for record in generation.rounds] == [0, 0, 0, 3, 3, 3]
    assert generation.counts().draft_acceptance() == 1.0
    assert generation.counts().draft_steps == 0


def test_a_certain_draft_is_kept_with_the_targets_probability_of_it() -> None:
    p = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], dtype=torch.float64)
    distribution: dict[tuple[int, ...], float] = {}

    def verified(random_source: Branches) -> Tensor:
        context = context_of(BigramRunner(torch.zeros(3, 3)), [1, 0, 1], random_source)
        chain = LookupDraft(1).propose(context, 1)
        return torch.tensor(chain.verify(verify_token, p, random_source).tokens)

    for tokens, branches in walk(verified):
        key = tuple(tokens.tolist())
        distribution[key] = distribution.get(key, 0.0) + branches.weight
    accepted = {(0, token): 0.2 * share for token, share in enumerate([0.6, 0.3, 0.1])}
    expected = {**accepted, (1,): 0.5, (2,): 0.3}  # p without the 0 that was drafted
    assert distribution.keys() == expected.keys()
    assert all(
        math.isclose(distribution[key], expected[key], abs_tol=1e-12) for key in distribution
    )


@pytest.mark.parametrize("verify", [verify_token, verify_block])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_distribution_of_the_output_is_the_targets(
    verify: object, temperature: float, seed: int
) -> None:
    configuration = standard(2, draft=LookupDraft(2), verify=verify)
    pair = random_pair(3, seed=seed)
    assert distance_from_the_target(pair, configuration, SamplingPolicy(temperature), 4) < 1e-9


def test_the_enumeration_rejects_a_lookup_with_a_q_it_was_not_drawn_from() -> None:
    class Modest(LookupDraft):
        def propose(self, context, gamma):  # type: ignore[no-untyped-def]
            chain = super().propose(context, gamma)
            return chain._replace(q=torch.full_like(chain.q, 1 / 3))

    pair = random_pair(3)
    broken = standard(2, draft=Modest(2))
    assert distance_from_the_target(pair, broken, SamplingPolicy(), 3) > 0.01


def test_tokens_that_the_target_forbids_are_never_kept() -> None:
    target = HistoryRunner(random_table(4, 3, forbidden=0.5))
    pair = random_pair(4)._replace(target=target)
    configuration = standard(2, draft=LookupDraft(2))
    assert distance_from_the_target(pair, configuration, SamplingPolicy(), 3) < 1e-9
