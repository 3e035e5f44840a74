"""Records about one cell of the grid."""

from __future__ import annotations

from distillspec.measure.summary.cells import CellKey
from tests.measured import a_bin, a_category, a_cell


def test_every_record_about_a_cell_has_its_key() -> None:
    records = (a_cell("control", 4, 1.0), a_category("control", 1.0, "a", 9))
    for record in (*records, a_bin("control", 1.0, 64, 9)):
        assert record.key == CellKey("control", "standard", 4, 1.0)
