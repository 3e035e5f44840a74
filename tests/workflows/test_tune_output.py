"""What `tune` leaves: the table, the evidence above the suite, and files that are not replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval
from distillspec.measure.timed.bench import BenchColumn
from distillspec.measure.timed.race import RaceOutcome, RaceStanding
from distillspec.models.loading.load import load_model
from distillspec.recipe.loading import load_suite
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.workflows.tune_output import (
    check_output,
    entry,
    evidence,
    gains,
    standings_table,
    why_no_gain,
)

COLUMNS = [BenchColumn("distilled", MethodConfig(name=f"m{g}"), g) for g in (2, 4, 8)]
ZERO = Interval(0.0, 0.0, 0.0)


def standing(way: int, **changes: Any) -> RaceStanding:
    values: dict[str, Any] = {
        "prompts": 9,
        "tokens_per_second": Interval(50.0, 45.0, 55.0),
        "speedup": Interval(1.5, 1.3, 1.7),
        "relative": ZERO,
        "dropped": False,
        "gain": "higher",
        "documents": 9,
    }
    return RaceStanding(way, **{**values, **changes})


def outcome(*standings: RaceStanding, documents: int = 9) -> RaceOutcome:
    return RaceOutcome(list(standings), Interval(33.0, 30.0, 36.0), 9, documents, 0, "time")


def test_the_table_tells_the_fastest_from_near_and_dropped_candidates() -> None:
    slower = Interval(-0.3, -0.4, -0.2)
    race = outcome(standing(1), standing(0), standing(2, relative=slower, dropped=True))
    table = standings_table(race, COLUMNS)
    assert list(table.columns[0].cells) == ["m4", "m2", "m8"]
    assert list(table.columns[-1].cells) == ["fastest", "within noise of it", "dropped"]


def test_an_interval_that_says_nothing_is_not_printed() -> None:
    wide = Interval(46.0, 0.0, 2.5e52)
    table = standings_table(outcome(standing(0, tokens_per_second=wide), standing(1)), COLUMNS)
    assert list(table.columns[4].cells) == ["too few prompts", "45 - 55"]


def test_the_evidence_is_a_comment_that_warns_where_nothing_is_shown(tiny_pair: Path) -> None:
    target = load_model(str(tiny_pair / "target"), dtype=torch.float32, what="target")
    suite = Suite.model_validate({"temperatures": [0.5], "max_new_tokens": 6})
    shown = evidence(outcome(standing(0), documents=1000), COLUMNS, suite, target, "p.jsonl")
    assert all(line.startswith("#") for line in shown.splitlines())
    assert "p.jsonl x 6 tokens" in shown and "T = 0.5" in shown and "float32" in shown
    assert "TOO FEW DOCUMENTS" not in shown and "NO GAIN" not in shown
    doubtful = standing(0, gain="no difference")
    warned = evidence(outcome(doubtful, documents=1), COLUMNS, suite, target, "p.jsonl")
    assert "TOO FEW DOCUMENTS" in warned and "NO GAIN" in warned


def test_a_gain_is_shown_only_by_an_interval_above_1() -> None:
    assert gains(standing(0))
    few = standing(0, gain="too few documents", documents=3)
    assert not gains(few)
    assert "3 documents" in why_no_gain(few)


def test_the_suite_decodes_with_the_winner_alone(tmp_path: Path) -> None:
    suite = Suite.model_validate({"temperatures": [0.5], "max_new_tokens": 6, "seed": 4})
    path = tmp_path / "tuned.yaml"
    path.write_text(entry(COLUMNS[1], suite))
    loaded = load_suite(path)
    assert [(method.name, method.gammas) for method in loaded.methods] == [("m4", (4,))]
    assert (loaded.temperatures, loaded.max_new_tokens, loaded.seed) == ((0.5,), 6, 4)


@pytest.mark.parametrize("verb", ["tune", "auto"])
def test_a_suite_of_tune_may_be_replaced_also_under_its_former_name(
    tmp_path: Path, verb: str
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(f"# Found by `distillspec {verb}` on Monday\n")
    check_output(path)
    path.write_text("name: handwritten\n")
    with pytest.raises(DistillSpecError) as caught:
        check_output(path)
    assert caught.value.where == str(path)
