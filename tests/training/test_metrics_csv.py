from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.training.metrics_csv import COLUMNS, MetricsCsv


def _written(path: Path, steps: int) -> MetricsCsv:
    rows = MetricsCsv(path)
    rows.start_after(None)
    for step in range(1, steps + 1):
        rows.log_metrics({"train/alpha": step / 3, "train/divergence_nats": 0.1 * step}, step)
    return rows


def test_a_row_a_step_under_fixed_columns_and_floats_read_back_the_same(tmp_path: Path) -> None:
    _written(tmp_path / "metrics.csv", 2)
    header, first, _ = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    row = dict(zip(COLUMNS, first.split(","), strict=True))
    assert (row["step"], float(row["train/alpha"])) == ("1", 1 / 3)
    assert row["probe/alpha"] == ""


def test_resuming_keeps_earlier_rows_byte_by_byte_and_drops_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    _written(path, 5)
    before = path.read_bytes().splitlines(keepends=True)
    with path.open("ab") as handle:
        handle.write(b"6,0.12")  # killed while it wrote
    MetricsCsv(path).start_after(3)
    assert path.read_bytes().splitlines(keepends=True) == before[:4]


def test_a_half_written_row_is_dropped_even_when_its_step_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    _written(path, 2)
    with path.open("ab") as handle:
        handle.write(b"3,0.12")
    MetricsCsv(path).start_after(3)
    assert path.read_text().splitlines()[-1].startswith("2,")


def test_a_new_run_starts_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    _written(path, 3)
    MetricsCsv(path).start_after(None)
    assert path.read_text() == ",".join(COLUMNS) + "\n"


def test_a_file_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    rows = MetricsCsv(tmp_path / "absent" / "metrics.csv")
    with pytest.raises(DistillSpecError, match="the folder of this file is gone"):
        rows.log_metrics({"train/alpha": 0.5}, 1)
