from __future__ import annotations

import pytest

from distillspec.__main__ import main

pytestmark = pytest.mark.usefixtures("place")


def test_fetch_knows_the_models_that_it_can_fetch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "gpt-2"]) == 1
    assert "the models are: smollm2-135m" in capsys.readouterr().err
