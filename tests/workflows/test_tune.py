"""`tune` on the tiny pair: a real race, a suite that loads, and errors before anything is timed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.data import JsonlSource
from distillspec.recipe.loading import load_suite
from distillspec.workflows import tune
from tests.seq2seq import written_pair


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = ({"prompt": f"def f{i}(x):\n    return"} for i in range(4))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tuned(tiny_pair: Path, prompts: Path, **changes: Any) -> int:
    values: dict[str, Any] = {
        "temperature": 0.0,
        "max_new_tokens": 6,
        "minutes": 5.0,
        "runner": "eager",
        "output": prompts.with_name("auto.yaml"),
        "seed": 0,
    }
    return tune.run(
        str(tiny_pair / "target"),
        str(tiny_pair / "draft"),
        JsonlSource(kind="jsonl", path=str(prompts)),
        **{**values, **changes},
    )


@pytest.mark.parametrize(("temperature", "tried"), [(0.0, 11), (1.0, 25)])
def test_the_winner_is_written_as_a_suite_with_its_evidence(
    temperature: float,
    tried: int,
    tiny_pair: Path,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tuned(tiny_pair, prompts, temperature=temperature) == 0
    output = prompts.with_name("auto.yaml")
    suite = load_suite(output)
    (method,) = suite.methods
    assert method.gammas is not None
    assert len(method.gammas) == 1
    assert suite.temperatures == (temperature,)
    assert (suite.max_new_tokens, suite.runner.kind) == (6, "eager")
    comment = output.read_text(encoding="utf-8").split("name:")[0]
    few = ("TOO FEW DOCUMENTS", "4 documents are too few")
    for fragment in ("4 prompts of", f"{tried} candidates", "tokens/s [", "autoregressive", *few):
        assert fragment in comment
    printed = capsys.readouterr().out
    assert f"{tried} candidates on up to 4 prompts" in printed
    assert printed.count("fastest") >= 2  # the column's head, and the winner
    command = printed.partition("next:")[2]
    assert f"--method {method.name} --gamma {method.gammas[0]}" in command
    assert "all prompts were decoded" in printed
    assert "Give more prompts." in printed


def test_an_earlier_suite_is_replaced_and_a_suite_of_a_person_is_not(
    tiny_pair: Path, prompts: Path
) -> None:
    output = prompts.with_name("auto.yaml")
    output.write_text("# Found by `distillspec auto` long ago\nname: old\n")
    assert tuned(tiny_pair, prompts, minutes=1e-9) == 0
    assert "long ago" not in output.read_text()
    output.write_text("name: mine\n")
    with pytest.raises(DistillSpecError, match="has not written it"):
        tuned(tiny_pair, prompts)
    assert output.read_text() == "name: mine\n"


def test_a_named_pipe_is_no_place_for_the_suite(tiny_pair: Path, prompts: Path) -> None:
    os.mkfifo(prompts.with_name("auto.yaml"))
    with pytest.raises(DistillSpecError, match="the suite to write is a named pipe"):
        tuned(tiny_pair, prompts)


def test_a_race_that_was_too_short_says_so(
    tiny_pair: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(tiny_pair, prompts, minutes=1e-9)
    printed = capsys.readouterr().out
    assert "too short to compare" in printed
    assert "ended after 2 prompts of 2 documents: the time was used up" in printed


def test_one_prompt_is_too_few_and_contexts_must_have_room(tiny_pair: Path, prompts: Path) -> None:
    with pytest.raises(DistillSpecError, match="none is left for a prompt"):
        tuned(tiny_pair, prompts, max_new_tokens=520)
    prompts.write_text('{"prompt": "alone"}\n')
    with pytest.raises(DistillSpecError, match="too few to compare"):
        tuned(tiny_pair, prompts)


def test_an_encoder_decoder_pair_is_tuned_with_chains_alone(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuned(written_pair(tmp_path / "t5"), prompts, temperature=1.0) == 0
    assert "only chains are tried" in capsys.readouterr().out
    (method,) = load_suite(prompts.with_name("auto.yaml")).methods
    assert method.draft.kind == "chain"
