"""The expected counts are those of the shipped decoder: both sides by enumeration, in float64."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import Tensor

from distillspec.measure.exact.expected_rounds import expected_counts
from distillspec.speculation.decoding.engine import Configuration, SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.records import Round
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.token import verify_token
from tests.speculation.branches import (
    Branches,
    HistoryRunner,
    Tokens,
    autoregressive_distribution,
    walk,
)

PROMPT = (0, 1)
POLICY = SamplingPolicy(0.7)


def runner(seed: int, V: int) -> HistoryRunner:
    generator = torch.Generator().manual_seed(seed)
    return HistoryRunner(torch.randn(V, V, generator=generator, dtype=torch.float64) * 1.5)


def decoded(
    target: HistoryRunner, draft: HistoryRunner, gamma: int, length: int
) -> tuple[float, float]:
    """Expected tokens and number of complete rounds, over every branch of the shipped decoder."""
    way = Configuration("standard", gamma, ChainDraft(), FixedLength(), verify_token)
    emitted = verifications = 0.0
    weights: dict[Tokens, float] = {(): 1.0}
    while weights:
        here = min(weights, key=len)  # all that leads here has been walked
        weight = weights.pop(here)
        after: dict[Tokens, float] = defaultdict(float)
        prompt, left = torch.tensor([*PROMPT, *here]), length - len(here)

        def one_round(random_source: Branches, prompt: Tensor = prompt, left: int = left) -> Round:
            decoder = SpeculativeDecoder(target, draft, way, POLICY, random_source)
            return next(decoder.rounds(prompt, max_new_tokens=left))

        for found, branches in walk(one_round):
            share = weight * branches.weight
            if not found.record.cut:
                emitted += share * found.record.emitted
                verifications += share
            if len(here) + len(found.tokens) < length:
                after[(*here, *found.tokens)] += share
        for tokens, share in after.items():
            weights[tokens] = weights.get(tokens, 0.0) + share
    return emitted, verifications


def keep_probabilities(target: HistoryRunner, draft: HistoryRunner, text: Tokens) -> list[float]:
    found = []
    for place, token in enumerate(text):
        context = torch.tensor([[*PROMPT, *text[:place]]])
        target.reset()
        draft.reset()
        p = POLICY.distribution(target.feed(context)[0, -1])[token]
        q = POLICY.distribution(draft.feed(context)[0, -1])[token]
        found.append(min(1.0, float(q / p)))
    return found


@pytest.mark.parametrize(("V", "gamma", "length"), [(2, 1, 5), (3, 2, 5), (2, 3, 6)])
def test_they_are_the_decoders_own_in_expectation(V: int, gamma: int, length: int) -> None:
    target, draft = runner(0, V), runner(1, V)
    expected = decoded(target, draft, gamma, length)
    emitted = verifications = 0.0
    for text, weight in autoregressive_distribution(target, POLICY, PROMPT, length).items():
        counts = expected_counts(keep_probabilities(target, draft, text), gamma)
        emitted += weight * counts.emitted
        verifications += weight * counts.verifications
    assert (emitted, verifications) == pytest.approx(expected, abs=1e-9)
    assert 1.0 < verifications < length - gamma  # otherwise rounds begin at one place only


def test_certain_chances_are_counted_like_rounds() -> None:
    assert expected_counts([1.0] * 9, gamma=2) == (9.0, 3.0)
    assert expected_counts([0.0] * 5, gamma=2) == (3.0, 3.0)  # rounds at 0, 1, 2; then too little
    # kept, corrected | kept, kept, bonus | kept: cut
    assert expected_counts([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], gamma=2) == (5.0, 2.0)


def test_a_text_shorter_than_a_round_counts_nothing() -> None:
    assert expected_counts([0.5, 0.5], gamma=2) == (0.0, 0.0)
    assert expected_counts([], gamma=1) == (0.0, 0.0)
