"""Every number has a definition."""

from __future__ import annotations

from dataclasses import fields

from distillspec.measure.summary.cells import Cell
from distillspec.measure.summary.definitions import DEFINITIONS


def test_every_quantity_of_a_cell_is_defined() -> None:
    words = " ".join(DEFINITIONS)
    plain = {"draft", "method", "gamma", "temperature", "prompts", "tokens_per_second"}
    derived = {"tau_iid", "draft_steps", "measured_over_predicted", "perfect_draft_gamma"}
    for field in fields(Cell):
        assert field.name in plain | derived or field.name in words.split()
