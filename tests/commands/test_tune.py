from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from distillspec.__main__ import main
from distillspec.commands import tune
from distillspec.commands.dispatch import COMMANDS as DISPATCHED
from distillspec.recipe.loading import load_suite


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--temperature", "-1"], "--temperature: must be a number from 0 to 4"),
        (["--temperature", "nan"], "--temperature: must be a number from 0 to 4"),
        (["--minutes", "0"], "--minutes: must be a number from 0.001"),
        (["--max-new-tokens", "0"], "--max-new-tokens: must be a whole number from 1"),
        (["--seed", "-1"], "--seed: must be a whole number from 0"),
        (["--temperature", "1e-40"], "--temperature is 1e-40, which cannot be computed"),
        (["--prompts", "nowhere.jsonl"], "no such file of prompts"),
        (["--prompts", "pipe"], "the file of prompts is a named pipe"),
        (["--runner", "other"], "invalid choice"),
        ([], "the target's folder does not exist"),
    ],
)
def test_a_setting_that_cannot_be_tuned_is_the_users_error(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert main(["tune", "./target", "./draft", *arguments]) == 1
    stderr = capsys.readouterr().err
    assert says in stderr
    assert "fix:" in stderr
    assert not Path("tune.yaml").exists()


def test_a_pair_is_tuned_and_decodes_as_the_last_line_says(
    tiny_pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "def f(x):"}\n{"prompt": "class A:"}\n')
    pair = [str(tiny_pair / "target"), str(tiny_pair / "draft")]
    options = ["--temperature", "0", "--max-new-tokens", "6", "--minutes", "0.01"]
    assert main(["tune", *pair, "--prompts", "rows.jsonl", *options]) == 0
    assert load_suite("tune.yaml").methods
    program, *command = shlex.split(capsys.readouterr().out.partition("next:")[2])
    assert program == "distillspec"
    assert command[3] in ("def f(x):", "class A:")
    assert main([*command, "--max-new-tokens", "8"]) == 0


def test_the_old_verb_still_works_and_names_the_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs: list[str] = []
    monkeypatch.setattr(tune, "main", lambda arguments: outputs.append(arguments.output) or 0)
    assert main(["auto", "target", "draft"]) == 0
    assert main(["auto", "target", "draft", "--output", "mine.yaml"]) == 0
    assert main(["tune", "target", "draft"]) == 0
    assert outputs == ["auto.yaml", "mine.yaml", "tune.yaml"]
    assert "tune" in capsys.readouterr().err
    assert "auto" not in DISPATCHED
