from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distillspec.__main__ import main
from distillspec.errors import DistillSpecError

ROOT = Path(__file__).parents[2]
PAIR = [str(ROOT / "checkpoints/nano-python/target"), str(ROOT / "checkpoints/nano-python/draft")]
SUITE = str(ROOT / "eval/suites/methods.yaml")


@pytest.mark.parametrize("method", ["standard", "spectr", "adaedl"])
def test_a_prompt_is_continued_and_summed_up(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = tmp_path / "prompt.py"
    prompt.write_text("def forward(self, hidden_states):\n", encoding="utf-8")
    command = ["decode", *PAIR, f"@{prompt}", "--suite", SUITE, "--max-new-tokens", "12"]
    assert main([*command, "--method", method, "--gamma", "2"]) == 0
    reported = capsys.readouterr().out
    assert reported.startswith("def forward(self, hidden_states):\n")
    assert "12 tokens in" in reported
    assert "tau" in reported


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x", "--method", "unheard-of", "--suite", SUITE], "no method 'unheard-of'"),
        (["@nowhere.txt"], "the prompt cannot be read"),
        (["@/dev/zero"], "the prompt cannot be read: it is a device, not a file"),
        (["x", "--gamma", "0"], "--gamma: must be a whole number from 1 to 64"),
        (["x", "--gamma", "many"], "--gamma: must be a whole number"),
        (["x", "--seed", "1e30"], "--seed: must be a whole number from 0 to 4,294,967,295"),
        (["x", "--seed", "9" * 30], "--seed: must be a whole number"),
        (["x", "--max-new-tokens", "999999999999"], "--max-new-tokens: must be a whole number"),
        (["x", "--temperature", "nan"], "--temperature: must be a number from 0 to 4"),
    ],
)
def test_what_cannot_be_decoded_is_the_users_error(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decode", *PAIR, *arguments]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "fault", [DistillSpecError("a fault", where="somewhere", fix="repeat it"), KeyboardInterrupt()]
)
def test_a_fault_while_tokens_are_printed_begins_a_line_of_its_own(
    fault: BaseException, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both streams into one, as a terminal shows them."""

    def fails(*arguments: object, **options: object) -> Iterator[object]:
        raise fault
        yield

    monkeypatch.setattr("distillspec.workflows.decode.decode", fails)
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    assert main(["decode", *PAIR, "f1(x):"]) != 0
    first, second, *_ = capfd.readouterr().out.splitlines()
    assert first == "f1(x):"
    assert second
