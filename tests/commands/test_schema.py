from __future__ import annotations

import json

import pytest

from distillspec.__main__ import main


@pytest.mark.parametrize(("argv", "key"), [([], "$defs"), (["--suite"], "properties")])
def test_schema_prints_a_json_schema(
    argv: list[str], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", *argv]) == 0
    assert key in json.loads(capsys.readouterr().out)
