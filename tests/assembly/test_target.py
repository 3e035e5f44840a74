from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distillspec.assembly.local_target import LocalTarget
from distillspec.assembly.pair import load_pair
from distillspec.assembly.served_target import ServedTarget
from distillspec.assembly.target import target_of
from distillspec.runtime.terminal import Terminal
from tests.tiny_plan import recipe, written_plan


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_a_target_is_chosen_by_where_its_weights_are(plan: dict[str, Any]) -> None:
    pair, console = load_pair(recipe(plan)), Terminal()
    local = target_of(pair, console)
    assert type(local) is LocalTarget
    assert local.evaluates and local.control_refusal() is None
    served = target_of(replace(pair, frozen=None), console)
    assert isinstance(served, ServedTarget)
    assert not served.evaluates and served.control_refusal()


def test_a_run_that_is_not_evaluated_ends_with_what_to_do_instead(plan: dict[str, Any]) -> None:
    pair, console = load_pair(recipe(plan)), Terminal()
    assert target_of(pair, console).closing_lines(Path("run"), Path("run/draft")) == []
    lines = target_of(replace(pair, frozen=None), console).closing_lines(
        Path("run"), Path("run/draft")
    )
    assert any("distillspec tune TARGET run/draft" in line for line in lines)
