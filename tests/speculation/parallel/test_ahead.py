from __future__ import annotations

import random

import pytest
import torch

from distillspec.speculation.parallel.ahead import AheadDraft
from distillspec.speculation.parallel.candidates import ROOT, Candidates, most_probable_path
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import HistoryRunner

V = 4


def table(seed: int) -> torch.Tensor:
    return torch.randn(V, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def path_to(candidates: Candidates, number: int) -> list[int]:
    tokens: list[int] = []
    while number != ROOT:
        tokens.append(candidates.nodes[number].token)
        number = candidates.nodes[number].parent
    return tokens[::-1]


@pytest.mark.parametrize("seed", range(40))
def test_after_any_events_each_node_has_the_probability_that_the_draft_gives_its_path(
    seed: int,
) -> None:
    """Growing and following in any order, against the entire text fed again for each node."""
    rng = random.Random(seed)
    runner, fresh = HistoryRunner(table(seed), capacity=60), HistoryRunner(table(seed))
    candidates = Candidates(rng.choice([1, 2, 5]), rng.choice([1, 2, 4]))
    ahead = AheadDraft(runner, candidates)
    text = [0, 1]
    ahead.start(text, SamplingPolicy(rng.choice([0.0, 1.0])))
    for _ in range(40):
        if rng.random() < 0.6:
            ahead.grow()
        else:
            path = most_probable_path(ahead.snapshot(), [], 3)
            further = [*path[: rng.randrange(len(path) + 1)], rng.randrange(V)]
            if len(text) + len(further) > 40:
                break
            ahead.follow(further)
            text += further
        assert ahead.committed == len(text)
        for number, node in enumerate(candidates.nodes):
            path = path_to(candidates, number)
            assert len(path) == node.depth
            fresh.reset()
            log_q = fresh.feed(torch.tensor([text + path]))[0].log_softmax(-1)
            along = log_q[len(text) - 1 : -1].gather(1, torch.tensor(path)[:, None])
            assert node.log_weight == pytest.approx(float(along.sum()), abs=1e-9)


class Counting(HistoryRunner):
    """Counts the tokens it is fed."""

    fed = 0

    def feed(self, tokens: torch.Tensor) -> torch.Tensor:
        self.fed += tokens.shape[1]
        return super().feed(tokens)

    def feed_tree(self, tokens: torch.Tensor, parents: object) -> torch.Tensor:
        self.fed += tokens.shape[0]
        return super().feed_tree(tokens, parents)  # type: ignore[arg-type]


def test_what_survives_a_hit_is_not_computed_again() -> None:
    runner = Counting(table(1))
    ahead = AheadDraft(runner, Candidates(width=2, depth=4))
    ahead.start([0, 1, 2], SamplingPolicy())
    for _ in range(3):
        assert ahead.grow()
    fed = runner.fed
    assert fed == 3 + 2 + 2  # the prompt, layer 1, layer 2
    first = most_probable_path(ahead.snapshot(), [], 1)
    assert ahead.follow(first)
    assert runner.fed == fed
    layers = {node.depth for node in ahead._candidates.nodes}
    assert layers == {1, 2}


def test_a_miss_feeds_the_new_token_alone() -> None:
    runner = Counting(table(1))
    ahead = AheadDraft(runner, Candidates(width=1, depth=4))
    ahead.start([0, 1, 2], SamplingPolicy())
    ahead.grow()
    ahead.grow()
    fed = runner.fed
    (known,) = most_probable_path(ahead.snapshot(), [], 1)
    assert not ahead.follow([(known + 1) % V])
    assert ahead.snapshot().tokens == []
    assert ahead.grow()
    assert runner.fed == fed + 1


def test_it_waits_where_the_tree_or_the_cache_is_full() -> None:
    ahead = AheadDraft(BigramRunner(table(2)), Candidates(width=1, depth=2))
    ahead.start([0], SamplingPolicy())
    assert [ahead.grow() for _ in range(4)] == [True, True, False, False]
    assert ahead.steps == 2
    full = AheadDraft(BigramRunner(table(2), capacity=3), Candidates(width=2, depth=9))
    full.start([0], SamplingPolicy())
    assert [full.grow() for _ in range(4)] == [True, True, False, False]


def test_no_candidate_is_read_where_the_model_has_no_position() -> None:
    class Short(BigramRunner):
        positions = 4

    ahead = AheadDraft(Short(table(2)), Candidates(width=2, depth=9))
    ahead.start([0, 1], SamplingPolicy())
    assert [ahead.grow() for _ in range(4)] == [True, True, True, False]
    assert ahead.capacity == 4


def test_candidates_at_temperature_0_are_ranked_by_the_untempered_distribution() -> None:
    """The one-hot distribution would know one candidate and no second."""
    ahead = AheadDraft(BigramRunner(table(3)), Candidates(width=3, depth=1))
    ahead.start([0], SamplingPolicy(0.0))
    ahead.grow()
    best = table(3)[0].topk(3).indices.tolist()
    assert ahead.snapshot().tokens == best
