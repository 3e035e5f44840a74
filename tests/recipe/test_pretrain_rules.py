from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.recipe.incompatible import Incompatible
from distillspec.recipe.pretrain_rules import PRETRAIN, TOKENIZER
from tests.recipe.rule_walk import check, entries, name


@pytest.mark.parametrize("entry", entries(PRETRAIN, TOKENIZER), ids=name)
def test_settings_of_a_pretraining_that_cannot_be_combined_are_refused_and_the_fix_is_accepted(
    entry: Incompatible, tmp_path: Path
) -> None:
    check(entry, tmp_path)
