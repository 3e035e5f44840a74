from __future__ import annotations

import torch

from distillspec.measure.timed.bench import Bench, BenchColumn
from distillspec.recipe.suite import Suite
from tests.measured import Setting


def test_a_block_can_be_of_some_cells_alone(setting: Setting, tiny_suite: Suite) -> None:
    grid = [BenchColumn("distilled", method, g) for method in tiny_suite.methods for g in (1, 3)]
    device = torch.device("cpu")
    drafts = {"distilled": setting.drafts["distilled"]}
    bench = Bench(tiny_suite, setting.target, drafts, setting.prompts, grid, device, None)
    bench.prepare_stop_rules()
    gammas = [text.row.gamma for text in bench.block(0, 0, 1.0, grid[1:])]
    assert gammas == [None, 3, None]
    assert [text.row.gamma for text in bench.block(1, 1, 1.0)] == [None, 3, 1, None]
