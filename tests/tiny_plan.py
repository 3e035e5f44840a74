"""The sections of a recipe over the tiny pair, and rows for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillspec.recipe.schema import Recipe


def written_plan(pair: Path, folder: Path) -> dict[str, Any]:
    """A recipe's sections; its rows are written into `folder`, which it is read from."""
    rows = ({"prompt": f"def f{i}(x):", "response": "\n    return x"} for i in range(40))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "tiny",
        "pair": {"target": str(pair / "target"), "draft": str(pair / "draft")},
        "data": {
            "source": {"kind": "jsonl", "path": "rows.jsonl"},
            "held_out_percent": 25.0,
            "max_prompt_tokens": 64,
            "max_response_tokens": 4,
        },
        "hardware": {"device": "cpu", "precision": "float32"},
    }


def recipe(plan: dict[str, Any], **changes: Any) -> Recipe:
    """Of these sections, with others in place of some."""
    return Recipe.model_validate({**plan, **changes})
