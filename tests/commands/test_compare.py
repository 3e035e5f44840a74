from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.__main__ import main

COMPARISON = "kind: comparison\nrecipe: pair.yaml\nminutes: 1\nvariants: {a: {}, b: {seed: 1}}\n"


@pytest.fixture(autouse=True)
def comparison(place: Path) -> None:
    (place / "prompts.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    Path("mine.yaml").write_text(COMPARISON.replace("{seed: 1}", "{distill.divergence: tvd}"))


def test_a_dry_run_tells_the_variants_and_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "mine.yaml", "seeds=[0, 1, 2]", "--dry-run"]) == 0
    reported = capsys.readouterr().out
    assert "tvd: 100% target" in reported
    assert "6 runs, 6 minutes of training at most" in reported


def test_the_resolved_comparison_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "mine.yaml", "gamma=7", "--dump-config"]) == 0
    assert "gamma: 7" in capsys.readouterr().out


def test_faults_of_a_variant_are_found_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", "mine.yaml", "variants.b={distill.divergense: tvd}", "--dry-run"]) == 1
    assert "did you mean 'divergence'" in capsys.readouterr().err
