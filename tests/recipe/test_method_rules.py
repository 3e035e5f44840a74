from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.recipe.incompatible import Incompatible
from distillspec.recipe.method_rules import ADAEDL, CHOOSE, METHOD
from tests.recipe.rule_walk import check, entries, name


@pytest.mark.parametrize("entry", entries(ADAEDL, CHOOSE, METHOD), ids=name)
def test_settings_of_a_method_that_cannot_be_combined_are_refused_and_the_fix_is_accepted(
    entry: Incompatible, tmp_path: Path
) -> None:
    check(entry, tmp_path)
