from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillspec.recipe.data import PythonSource


def test_a_python_source_must_name_code() -> None:
    with pytest.raises(ValidationError, match="names no code"):
        PythonSource(kind="python-source")
    assert PythonSource(kind="python-source", standard_library=True).packages == ()
