from __future__ import annotations

import pytest
import torch

from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.trajectory import keep_probabilities, watch
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import DoubleReader, HistoryRunner
from tests.speculation.decoding.test_engine import random_table

POLICY = SamplingPolicy(0.8)
TEXT = [0, 1, 2, 2, 0, 1]


def runner(seed: int, held: int = 0) -> HistoryRunner:
    made = HistoryRunner(random_table(3, seed))
    if held:
        made.feed(torch.tensor([TEXT[:held]]))
    return made


def distributions(seed: int, N: int) -> torch.Tensor:
    """Of each of the text's last N tokens."""
    return POLICY.distribution(runner(seed).feed(torch.tensor([TEXT]))[0, -N - 1 : -1])


def test_the_chance_of_a_token_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.0, 1.0], [0.0, 1.0]])
    q = torch.tensor([[0.25, 0.75], [0.4, 0.6], [0.3, 0.7], [0.0, 1.0]])
    assert keep_probabilities(p, q, torch.tensor([0, 0, 0, 0])).tolist() == [0.5, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("held", [0, 1, 3])
@pytest.mark.parametrize("N", [1, 3])
def test_a_model_that_rested_reads_what_it_missed_and_speaks_of_the_last_tokens(
    held: int, N: int
) -> None:
    held = min(held, len(TEXT) - N - 1)
    draft, p = runner(1, held), distributions(0, N)
    watched = watch(["a"], {"a": draft}, TEXT, p, p[:0], POLICY)
    expected = keep_probabilities(p, distributions(1, N), torch.tensor(TEXT[-N:]))
    assert watched.keep_probabilities == {"a": pytest.approx(expected.tolist(), abs=1e-12)}
    assert watched.forwards == 1
    assert draft.tokens.tolist() == [TEXT[:-1]]


@pytest.mark.parametrize(("drafted", "forwards"), [(2, 1), (3, 0), (5, 0)])
def test_the_model_that_drafted_gives_what_it_drew_from_and_reads_one_token_at_most(
    drafted: int, forwards: int
) -> None:
    """Of 3 tokens: all of its draft kept and a bonus, or a correction."""
    N = 3
    q, p = distributions(1, N), distributions(0, N)
    draft = runner(1, min(len(TEXT) - N + drafted - 1, len(TEXT) - 1))
    rows = torch.cat([q, q])[:drafted]
    watched = watch([None], {None: draft}, TEXT, p, rows, POLICY)
    expected = keep_probabilities(p, q, torch.tensor(TEXT[-N:]))
    assert watched.keep_probabilities == {None: pytest.approx(expected.tolist(), abs=1e-12)}
    assert watched.forwards == forwards
    assert draft.tokens.tolist() == [TEXT[:-1]]


def test_where_nobody_watches_nothing_is_read() -> None:
    draft = BigramRunner(torch.zeros(3, 3))
    assert watch((), {"a": draft}, TEXT, distributions(0, 1), distributions(1, 1), POLICY) == (
        {},
        0,
    )
    assert draft.length == 0


def test_a_model_without_room_for_the_text_would_have_kept_nothing() -> None:
    full = DoubleReader(random_table(3, 2), capacity=8)
    full.feed(torch.tensor([TEXT[:2]]))
    draft, p = runner(1, 2), distributions(0, 2)
    watched = watch(["a", "full"], {"a": draft, "full": full}, TEXT, p, p[:0], POLICY)
    expected = keep_probabilities(p, distributions(1, 2), torch.tensor(TEXT[-2:]))
    assert watched.keep_probabilities == {
        "a": pytest.approx(expected.tolist(), abs=1e-12),
        "full": [0.0, 0.0],
    }
    assert (watched.forwards, full.length) == (1, 2)
