from __future__ import annotations

from pathlib import Path

from distillspec.atomic import check_replaceable
from distillspec.recipe.written_files import MODEL_FILES, TOKENIZER_FILES


def test_what_transformers_writes_may_be_replaced(tiny_pair: Path) -> None:
    check_replaceable(tiny_pair / "target", MODEL_FILES)
    assert any((tiny_pair / "target" / name).exists() for name in TOKENIZER_FILES)
