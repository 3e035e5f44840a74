from __future__ import annotations

from collections import Counter

from distillspec.corpus.batches.order import SequenceOrder
from distillspec.recipe.text_source import SourceShares

DRAFT = SourceShares(draft=1.0)


def test_every_epoch_visits_every_prompt_once_in_a_new_order() -> None:
    order = SequenceOrder(10, DRAFT, batch_size=4, seed=0)
    places = [choice.place for step in range(5) for choice in order.step(step)]
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10))
    assert places[:10] != places[10:]


def test_a_step_depends_on_seed_and_number_alone() -> None:
    shares = SourceShares(fixed=0.25, target=0.25, draft=0.5)
    first, second = (SequenceOrder(7, shares, batch_size=3, seed=5) for _ in range(2))
    forward = [first.step(n) for n in range(9)]
    assert [second.step(n) for n in reversed(range(9))] == forward[::-1]
    assert SequenceOrder(7, shares, batch_size=3, seed=6).step(0) != forward[0]


def test_origins_follow_the_shares_as_closely_as_entire_sequences_can() -> None:
    order = SequenceOrder(50, SourceShares(fixed=0.3, draft=0.7), batch_size=16, seed=1)
    total: Counter[str] = Counter()
    for step in range(200):
        counts = Counter(choice.origin for choice in order.step(step))
        assert counts["fixed"] in (4, 5)  # 16 * 0.3 = 4.8
        total += counts
    assert abs(total["fixed"] / total.total() - 0.3) < 0.01


def test_whole_batches_have_one_origin_and_the_run_the_shares() -> None:
    shares = SourceShares(fixed=0.2, draft=0.5, speculative=0.3, per="batch")
    order = SequenceOrder(50, shares, batch_size=4, seed=1)
    total: Counter[str] = Counter()
    for step in range(100):
        (origin,) = {choice.origin for choice in order.step(step)}
        total[origin] += 1
        for name, share in shares.of.items():
            assert abs(total[name] - share * (step + 1)) < 2  # at any time, not at the end alone
    assert order.step(7) == SequenceOrder(50, shares, batch_size=4, seed=1).step(7)


def test_buckets_deal_sequences_of_like_length_to_a_step() -> None:
    lengths = [(index * 37) % 101 for index in range(96)]
    whole = SequenceOrder(96, DRAFT, batch_size=4, seed=2, lengths=lengths, bucket_steps=6)
    plain = SequenceOrder(96, DRAFT, batch_size=4, seed=2)

    def spread(order: SequenceOrder) -> float:
        steps = [[lengths[choice.place] for choice in order.step(step)] for step in range(24)]
        return sum(max(step) - min(step) for step in steps) / len(steps)

    assert spread(whole) < 0.5 * spread(plain)
    for start in range(0, 24, 6):  # a bucket has the prompts that its steps would have had
        places = [
            sorted(c.place for step in range(start, start + 6) for c in order.step(step))
            for order in (whole, plain)
        ]
        assert places[0] == places[1]
    means = [sum(lengths[c.place] for c in whole.step(step)) for step in range(24)]
    assert means[:6] != sorted(means[:6])  # the order of a bucket's steps is drawn
    assert whole.step(9) == SequenceOrder(
        96, DRAFT, batch_size=4, seed=2, lengths=lengths, bucket_steps=6
    ).step(9)


def test_shares_of_tokens_leave_each_sequence_to_be_written() -> None:
    order = SequenceOrder(5, SourceShares(draft=0.3, target=0.7, per="token"), batch_size=4, seed=0)
    assert {choice.origin for choice in order.step(3)} == {"draft"}


def test_a_share_of_nothing_is_never_drawn() -> None:
    for shares, origin in ((DRAFT, "draft"), (SourceShares(target=1.0), "target")):
        order = SequenceOrder(5, shares, batch_size=8, seed=0)
        assert {c.origin for step in range(20) for c in order.step(step)} == {origin}


def test_no_prompt_keeps_an_origin_for_ever() -> None:
    order = SequenceOrder(4, SourceShares(fixed=0.5, draft=0.5), batch_size=4, seed=0)
    seen = {choice for step in range(20) for choice in order.step(step)}
    assert len(seen) == 8
