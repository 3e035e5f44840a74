"""first.json and finals.json of a comparison: everything in its tables comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Sums
from distillspec.measure.summary.variants import (
    MeasuredVariant,
    VariantCost,
    VariantReading,
    markdown,
    standings,
)
from distillspec.measure.summary.variants_file import (
    ComparisonRound,
    RoundTable,
    read_round,
    write_round,
)


def variant(tau: float, cost: VariantCost | None) -> MeasuredVariant:
    texts = [2.0, 3.0, 4.0, 5.0] * 2
    reading = VariantReading(Sums([tau * n for n in texts], texts), Sums([0.5] * 8, [1.0] * 8))
    return MeasuredVariant({"held-out": reading}, cost)


COST = VariantCost(10, 1000, {"rollout": 2.0, "target": 1.0, "update": 4.0}, 30.0)
RUNS = {"kl": [variant(2.0, COST)], "tvd": [variant(2.2, COST)], "none": [variant(1.5, None)]}


def a_round() -> ComparisonRound:
    table = RoundTable("held-out", 12, 8, standings(RUNS, "kl", "held-out", 0.95))
    return ComparisonRound(
        "mine", "first", 2.0, [0], 1.0, 4, "kl", 0.95, [table], {"texts": 12}, {"threads": 1}
    )


def test_a_round_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    write_round(a_round(), path)
    held = read_round(path)
    before, after = a_round().tables[0].standings, held.tables[0].standings
    # The draft that was not trained has no tokens: nan, which is null in the file.
    assert markdown(after, "kl", 0.95) == markdown(before, "kl", 0.95)
    assert after[:2] == before[:2] and after[2].tokens != after[2].tokens
    assert held._replace(tables=[]) == a_round()._replace(tables=[])
    assert (held.tables[0].kind, held.tables[0].documents) == ("held-out", 8)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    path.write_text('{"comparison": "mine"}')
    with pytest.raises(DistillSpecError, match="result of a comparison cannot be read"):
        read_round(path)
