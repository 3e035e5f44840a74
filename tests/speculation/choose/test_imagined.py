"""What an arm would have done on a text is what it does, in expectation: both by enumeration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from distillspec.measure.exact.expected_rounds import expected_counts
from distillspec.speculation.choose.chooser import Chooser, Reward, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.choose.hedge import Hedge
from distillspec.speculation.choose.imagined import ChainRounds, LookupRounds
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.branches import Branches, HistoryRunner, walk
from tests.speculation.decoding.test_engine import PROMPT, random_table, standard


def outcome(keep_probabilities: Sequence[float]) -> RoundOutcome:
    return RoundOutcome(
        len(keep_probabilities),
        1.0,
        [0] * len(keep_probabilities),
        len(keep_probabilities),
        {"a": keep_probabilities},
    )


def test_rounds_by_hand() -> None:
    rounds = ChainRounds("a", gamma=2)
    assert rounds.extend(outcome([1.0, 1.0, 1.0])) == 1.0  # two kept and a bonus
    assert rounds.extend(outcome([0.0, 0.0])) == 2.0  # corrections
    # a round begins at the first; the second continues it or begins another
    assert rounds.extend(outcome([0.75, 0.5])) == pytest.approx(1.25)
    rounds.begin()
    assert rounds.extend(outcome([0.75])) == 1.0


def test_how_the_text_came_in_pieces_does_not_matter() -> None:
    keep_probabilities = torch.rand(12, generator=torch.Generator().manual_seed(0)).tolist()
    entire, pieces = ChainRounds("a", 3), ChainRounds("a", 3)
    parts = [keep_probabilities[:1], keep_probabilities[1:6], keep_probabilities[6:]]
    total = sum(pieces.extend(outcome(part)) for part in parts)
    assert total == pytest.approx(entire.extend(outcome(keep_probabilities)), abs=1e-12)


def test_it_agrees_with_the_expected_counts_of_an_entire_text() -> None:
    """There, rounds without room for a full one are left out: those that begin near the end."""
    keep_probabilities = torch.rand(20, generator=torch.Generator().manual_seed(1)).tolist()
    begun = ChainRounds("a", 3).extend(outcome(keep_probabilities[:17]))
    assert begun == pytest.approx(expected_counts(keep_probabilities, 3).verifications, abs=1e-12)


def test_rounds_of_a_lookup_by_hand() -> None:
    text = [1, 2, 3, 1, 2, 3, 1, 9]
    rounds = LookupRounds(longest=2, gamma=3)
    # after 1 2 3 1: 2 3 1 is drafted and kept, 9 is the bonus
    assert rounds.extend(RoundOutcome(4, 1.0, text, 4)) == 1.0
    # nothing follows a 9; after 9 9 a 9 is drafted and kept, and 1 is the bonus
    assert rounds.extend(RoundOutcome(3, 1.0, [*text, 9, 9, 1], 3)) == 2.0


# --- unbiased, by enumeration --------------------------------------------------------------------

POLICY = SamplingPolicy(0.8)
NEW_TOKENS = 3
ARMS = [
    standard(1, model="one"),
    standard(2, model="other"),
    standard(2, draft=LookupDraft(2)),
]


def expectation(
    make: Callable[[Branches], Chooser], count: Callable[[Chooser, int], float]
) -> float:
    """Of count(chooser, rounds of the target) over every branch of decoding."""
    target, first, second = (HistoryRunner(random_table(2, seed)) for seed in range(3))
    total = 0.0

    def decode(random_source: Branches) -> float:
        chooser = make(random_source)
        drafts = {"one": first, "other": second}
        decoder = SpeculativeDecoder(target, drafts, chooser, POLICY, random_source)
        rounds = decoder.decode(torch.tensor(PROMPT), max_new_tokens=NEW_TOKENS).rounds
        return count(chooser, len(rounds))

    for counted, branches in walk(decode):
        total += branches.weight * counted
    return total


@pytest.mark.parametrize("arm", range(3))
def test_the_expected_rounds_of_arms_that_others_decode_for_are_their_own(arm: int) -> None:
    def decoding(arm: Configuration) -> Callable[[Branches], Chooser]:
        def make(random_source: Branches) -> Chooser:
            hedge = Hedge(ARMS, Reward(2), random_source)
            hedge.choose = lambda: arm  # type: ignore[method-assign]
            return hedge

        return make

    alone = expectation(lambda _: Fixed(ARMS[arm]), lambda _, rounds: rounds)
    assert 1.0 < alone < NEW_TOKENS
    for decoding_arm in ARMS:
        expected = expectation(
            decoding(decoding_arm), lambda hedge, _: hedge.state()["arms"][arm]["values"][1]
        )
        assert expected == pytest.approx(alone, abs=1e-9)


def test_they_are_unbiased_while_hedge_draws_its_arms() -> None:
    alone = expectation(lambda _: Fixed(ARMS[1]), lambda _, rounds: rounds)
    expected = expectation(
        lambda random_source: Hedge(ARMS, Reward(2), random_source),
        lambda hedge, _: hedge.state()["arms"][1]["values"][1],
    )
    assert expected == pytest.approx(alone, abs=1e-9)
