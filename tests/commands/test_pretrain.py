from __future__ import annotations

import pytest

from distillspec.__main__ import main

pytestmark = pytest.mark.usefixtures("place")


def test_pretrain_tells_what_the_recipe_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=7", "--dry-run"]) == 0
    reported = capsys.readouterr().out
    assert "Llama, 2 layers" in reported
    assert "7 steps" in reported


def test_pretrain_dumps_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "pretrain.yaml", "--dump-config"]) == 0
    assert capsys.readouterr().out.startswith("schema_version: 2\nkind: pretrain\nname: pretrain\n")


def test_pretrain_refuses_a_recipe_that_distils(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "pair.yaml", "--dry-run"]) == 1
    assert "`pretrain` needs one with `kind: pretrain`" in capsys.readouterr().err
