from __future__ import annotations

import pytest

from distillspec.__main__ import main

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.parametrize("path", ["models", "nowhere", "pair.yaml"])
def test_report_wants_the_folder_of_a_run(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", path]) == 1
    reported = capsys.readouterr().err
    assert f"'{path}' is not the folder of a run" in reported
    assert "checkpoints/runs/<recipe>/<run id>" in reported
