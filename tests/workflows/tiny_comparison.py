"""A comparison on the tiny pair, with trainings of a moment each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distillspec.recipe.comparison import ComparisonConfig

RECIPE = """\
pair: {target: pair/target, draft: pair/draft}
data:
  source: {kind: jsonl, path: rows.jsonl}
  held_out_percent: 25.0
  max_prompt_tokens: 64
  max_response_tokens: 6
distill:
  divergence: forward_kl
  source: {draft: 1.0}
  batch_size: 4
  probe: {every_steps: 20, prompts: 2, gamma: 2, max_new_tokens: 4}
optimizer: {learning_rate: 1.0e-2, warmup_steps: 1}
hardware: {device: cpu, precision: float32}
evaluate: {suite: suite.yaml}
"""
FOLDER = Path("checkpoints/runs/compare/tiny")
ONCE: dict[str, Any] = {"seeds": (0,), "finals": None, "elsewhere": {}, "minutes": 0.005}


@pytest.fixture
def workplace(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_pair, tmp_path / "pair")
    rows = ({"prompt": f"def f{i}(x):", "response": f"\n    return x + {i}"} for i in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pair.yaml").write_text(RECIPE)
    (tmp_path / "suite.yaml").write_text("prompts: {count: 2}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def comparison(**changes: Any) -> ComparisonConfig:
    return ComparisonConfig.model_validate(
        {
            "kind": "comparison",
            "name": "tiny",
            "recipe": "pair.yaml",
            "minutes": 0.01,
            "seeds": (0, 1),
            "texts": 4,
            "max_new_tokens": 8,
            "gamma": 2,
            "counts_stored_text": False,
            "variants": {
                "kl": {"distill.divergence": "forward_kl"},
                "sampled": {"distill.source": {"target": 1.0}},
                "chosen": {"distill.select": {"keep": 0.5, "reference": "variant:kl"}},
            },
            "finals": {"count": 1, "minutes": 0.012, "seeds": (3,)},
            "elsewhere": {"noise": {"kind": "adversarial", "shapes": ("random",), "tokens": 8}},
            **changes,
        }
    )


def measured() -> dict[str, int]:
    paths = sorted(FOLDER.glob("*/*/seed-*/measured.json"))
    return {str(path.relative_to(FOLDER).parent): path.stat().st_mtime_ns for path in paths}
