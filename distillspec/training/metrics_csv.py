"""metrics.csv: one row a step, written at once, cut back to the checkpoint when a run resumes."""

from __future__ import annotations

import csv
import io
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from distillspec.runtime.atomic import explain, write_text
from distillspec.runtime.plain_files import BoundedText, read_text

_NUMBER = re.compile(r"[0-9]{1,18}")
COLUMNS = (
    "step",
    "train/divergence_nats",
    "train/alpha",
    "train/response_tokens",
    "train/tokens_per_second",
    "train/learning_rate",
    "train/gradient_norm",
    "train/rollout_seconds",
    "train/target_seconds",
    "train/update_seconds",
    "train/training_seconds",
    "probe/alpha",
    "probe/tau_tokens",
    "probe/seconds",
    "probe/nats",
    "train/alpha_at_most",  # in place of train/alpha, where the target's signal is cached
    "train/divergence",  # in place of train/divergence_nats, of a loss that is not in nats
)


class MetricsCsv(Logger):
    """A Lightning logger with fixed columns; floats are written so that they read back the same.

    A step's row is complete in one `log_metrics` call. Errors: DistillSpecError when the file
    cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """The resolved recipe lies beside this file already."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        unknown = metrics.keys() - set(COLUMNS)
        assert not unknown, f"no column for {sorted(unknown)}"
        values = {name: repr(float(value)) for name, value in metrics.items()}
        try:
            with self.path.open("a", encoding="utf-8", newline="") as handle:
                csv.DictWriter(handle, COLUMNS, lineterminator="\n").writerow(
                    {**values, "step": step}
                )
        except OSError as error:
            raise explain(error, self.path) from error

    @rank_zero_only
    def start_after(self, step: int | None) -> None:
        """Keep the rows up to `step` byte by byte, drop later and half-written ones. None: all."""
        kept = io.StringIO()
        csv.writer(kept, lineterminator="\n").writerow(COLUMNS)
        if step is not None and self.path.exists():
            fix = "move the file away: the curves then begin at the step that is resumed"
            text = read_text(BoundedText(self.path, "the log of this training", fix))
            for line in text.splitlines(keepends=True)[1:]:
                first = line.partition(",")[0]
                if line.endswith("\n") and _NUMBER.fullmatch(first) and int(first) <= step:
                    kept.write(line)
        write_text(self.path, kept.getvalue())
