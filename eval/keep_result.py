"""Keep what was measured in eval/results/, of which `docs/generate.py` makes the page of results.

    .venv/bin/python eval/keep_result.py methods RUN-FOLDER/evaluation/methods/summary.json
    .venv/bin/python eval/keep_result.py objectives checkpoints/runs/compare/objectives/finals.json
    .venv/bin/python eval/keep_result.py verify verify.json --conditions "one core, the other busy"

The file is kept as it was written, with the conditions in its `environment`. From an evaluation
four things are left out, which are long and stand in no table of the page: examples, definitions,
acceptance by context, and the curves of regret. Its run's recipe and commands are added.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from distillspec.errors import DistillSpecError  # noqa: E402
from distillspec.recipe import yaml_text  # noqa: E402
from distillspec.runtime import atomic, provenance  # noqa: E402
from distillspec.runtime.plain_files import BoundedText, read_json  # noqa: E402

RESULTS = ROOT / "eval" / "results"
MOST_BYTES = 200_000
_LEFT_OUT: dict[str, Any] = {"examples": [], "definitions": {}, "contexts": []}
_CURVES = ("regret", "mean_regret")


def keep(name: str, path: Path, conditions: str, into: Path = RESULTS) -> Path:
    """Write the reduced file.

    Args:
        name: Of the kept file, without suffix. `docs/published.py` names those of the first table.
        path: summary.json of an evaluation, first.json or finals.json of a comparison, or the
            file that a benchmark's `--json` has written.
        conditions: What else matters for a figure: what the machine did besides, for example.
        into: Folder of the kept files.

    Raises:
        DistillSpecError: The file is none of these, or too large when reduced.
    """
    file = BoundedText(path, "the result", "name what evaluate, compare or a benchmark has written")
    values = read_json(file, dict[str, Any])
    if not isinstance(values.get("environment"), dict):
        raise file.fault("it has no environment")
    if conditions:
        values["environment"]["conditions"] = conditions
    if "cells" in values:
        values = _reduced(values)
        values["environment"] |= _of_run(path.parents[2])
    environment = values["environment"]
    if "command" in environment:
        environment["command"] = _portable(environment["command"])
    kept = into / f"{name}.json"
    # One space a level: files of thousands of short lines, which `git diff` can still show.
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    if len(text.encode()) > MOST_BYTES:
        raise DistillSpecError(
            f"{len(text.encode()):,} bytes are more than {MOST_BYTES:,}",
            where=str(kept),
            fix="measure fewer cells in one suite, or several suites",
        )
    atomic.make_folder(into)
    atomic.write_text(kept, text)
    return kept


def _reduced(summary: dict[str, Any]) -> dict[str, Any]:
    regrets = [one | {key: [] for key in _CURVES} for one in summary["regrets"]]
    return summary | _LEFT_OUT | {"regrets": regrets}


def _of_run(folder: Path) -> dict[str, Any]:
    """How the drafts of a run were made."""
    recipe, log = folder / "recipe.yaml", folder / "run.json"
    if not recipe.is_file() or not log.is_file():
        return {}
    return {
        "recipe": yaml_text.parse(recipe.read_text(encoding="utf-8"), where=str(recipe)),
        "run_commands": [_portable(start.command) for start in provenance.read(log)],
    }


def _portable(command: Sequence[str]) -> list[str]:
    """Without the interpreter's path and its buffering, which are of one machine and one start."""
    rest = list(command[1:])
    return ["python", *rest[rest[:1] == ["-u"] :]] if command else []


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the file in eval/results/, without suffix")
    parser.add_argument("path", type=Path, help="what was written")
    parser.add_argument("--conditions", default="", help="what else matters for the figures")
    arguments = parser.parse_args()
    print(keep(arguments.name, arguments.path, arguments.conditions).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DistillSpecError as error:
        sys.exit(f"error: {error}")
