"""Which of a run's evaluations the exported draft and its card use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distillspec.errors import DistillSpecError
from distillspec.measure.evaluation import SUMMARY
from distillspec.measure.summary.file import read_summary
from distillspec.measure.summary.records import DISTILLED, Summary

UNDISTILLED = "undistilled"


def evidence(evaluations: Path, say: Callable[[str], None]) -> Summary | None:
    """The newest evaluation that timed the distilled draft as engines run it.

    An evaluation that also timed the undistilled draft by the same method has priority, because
    only it shows what distilling changed. None if no evaluation timed the distilled draft.

    Args:
        evaluations: The run's folder of evaluations, one folder a suite.
        say: Receives a sentence about each summary that cannot be read.
    """
    newest_first = sorted(
        evaluations.glob(f"[!.]*/{SUMMARY}"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    alone: Summary | None = None
    for path in newest_first:
        try:
            summary = read_summary(path)
        except DistillSpecError as error:  # of another version: `evaluate` writes it again
            say(f"skipped: {error.what} (at {error.where})")
            continue
        best = summary.servable(DISTILLED, None)
        if best is None:
            continue
        if any((c.draft, c.method) == (UNDISTILLED, best.method) for c in summary.cells):
            return summary
        alone = alone or summary
    return alone
