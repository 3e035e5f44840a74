from __future__ import annotations

import math

from distillspec.speculation.records import Counts, Generation, RoundRecord, TokenStatus


def block(drafted: int, accepted: int, *, cut: bool = False) -> RoundRecord:
    emitted = 1 if cut else accepted + 1
    return RoundRecord(drafted, accepted, emitted, draft_steps=drafted, cut=cut)


ROUNDS = [block(3, 3), block(3, 1), block(3, 0), block(3, 2, cut=True)]


def test_rates_are_those_of_a_sum_by_hand() -> None:
    counts = Counts.of(ROUNDS)
    assert counts.block_efficiency() == (4 + 2 + 1) / 3
    assert counts.draft_acceptance() == 4 / 9
    assert [counts.acceptance_at(position) for position in range(4)] == [2 / 3, 1 / 3, 1 / 3, 0.0]
    assert counts.draft_steps_per_round() == 3.0
    assert [counts.kept_at_least(length) for length in (1, 3, 4)] == [2 / 3, 1 / 3, 0.0]


def test_a_cut_round_counts_as_a_forward_and_its_tokens_as_tokens_and_no_more() -> None:
    uncut, cut = Counts.of(ROUNDS[:3]), Counts.of(ROUNDS)
    assert (cut.tokens, cut.target_forwards) == (uncut.tokens + 1, uncut.target_forwards + 1)
    assert cut.block_efficiency() == uncut.block_efficiency()
    assert cut.draft_acceptance() == uncut.draft_acceptance()
    assert cut.accepted_at == uncut.accepted_at


def test_counts_of_the_parts_add_up_to_those_of_all() -> None:
    rounds = [*ROUNDS, block(5, 4), block(0, 0), block(1, 1)]
    for split in range(len(rounds) + 1):
        assert Counts.of(rounds[:split]) + Counts.of(rounds[split:]) == Counts.of(rounds)
    assert sum((Counts.of([record]) for record in rounds), Counts()) == Counts.of(rounds)


def test_accepted_tokens_are_emitted_tokens_less_one_a_round() -> None:
    counts = Counts.of(ROUNDS)
    assert counts.accepted == counts.emitted - counts.verifications == sum(counts.accepted_at)


def test_rates_of_nothing_are_not_a_number() -> None:
    nothing = Counts()
    assert nothing == Counts.of([])
    for rate in (
        nothing.block_efficiency(),
        nothing.draft_acceptance(),
        nothing.acceptance_at(0),
        nothing.draft_steps_per_round(),
    ):
        assert math.isnan(rate)


def test_plain_decoding_has_a_block_efficiency_of_one_and_no_acceptance() -> None:
    counts = Counts.of([block(0, 0)] * 5)
    assert counts.block_efficiency() == 1.0
    assert math.isnan(counts.draft_acceptance())
    assert math.isnan(counts.acceptance_at(0))


def test_a_generation_counts_its_own_rounds() -> None:
    generation = Generation(
        tokens=[1, 2, 3, 4],
        statuses=[TokenStatus.ACCEPTED] * 3 + [TokenStatus.BONUS],
        rounds=[block(3, 3)],
        prefill_seconds=0.0,
        decode_seconds=0.1,
        finished=False,
    )
    assert generation.counts() == Counts.of([block(3, 3)])
    assert generation.counts().block_efficiency() == 4.0
