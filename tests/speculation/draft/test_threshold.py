from __future__ import annotations

import pytest

from distillspec.speculation.draft.threshold import FollowingThreshold


class Going(FollowingThreshold):
    """Always goes one way."""

    def __init__(self, way: int, threshold: float = 0.4, lowest: float = 0.0) -> None:
        super().__init__(threshold, rate=0.8, lowest=lowest)
        self.way = way

    def direction(self, length: int, gamma: int) -> int:
        return self.way


@pytest.mark.parametrize("way", [-1, 0, 1])
def test_a_round_moves_it_by_a_thousandth_at_most(way: int) -> None:
    rule = Going(way)
    rule.learn(4, 1, 8)
    assert rule.threshold == pytest.approx(0.4 + way * 0.001)
    assert rule.rate == pytest.approx(0.5 * 0.8 + 0.5 * 0.25)


def test_a_round_that_drafted_nothing_teaches_nothing() -> None:
    rule = Going(1)
    rule.learn(0, 0, 8)
    assert rule.state() == [0.4, 0.8]


@pytest.mark.parametrize(("way", "end"), [(1, 1.0), (-1, -0.5)])
def test_it_stays_where_it_can_still_come_back(way: int, end: float) -> None:
    rule = Going(way, threshold=end - way * 0.0015, lowest=-0.5)
    for _ in range(5):
        rule.learn(4, 4, 8)
    assert rule.threshold == end


def test_what_it_has_learnt_is_kept_and_given_back() -> None:
    taught, fresh = Going(1), Going(1)
    taught.learn(4, 1, 8)
    fresh.restore(taught.state())
    assert fresh.state() == taught.state() != Going(1).state()
