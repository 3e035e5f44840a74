"""metrics.csv: one row per step, written at once, cut back to the checkpoint on a resumption."""

from __future__ import annotations

import csv
import io
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from distillspec.runtime.atomic import write_text
from distillspec.runtime.os_errors import explain
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
    "train/alpha_at_most",  # replaces train/alpha in steps that read cached top-k logits
    "train/divergence",  # replaces train/divergence_nats if the loss is not in nats
)


class MetricsCsv(Logger):
    """A Lightning logger with fixed columns. Floats read back with the same bits.

    Each `log_metrics` call writes a complete row. It raises DistillSpecError if the file cannot be
    written.
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
        """Nothing to do: the resolved recipe is in the same folder."""

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
        """Drop the rows after `step` and incomplete ones; earlier rows keep their bytes.

        Args:
            step: Last step to keep; None drops all rows.
        """
        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerow(COLUMNS)
        if step is not None and self.path.exists():
            fix = "move the file away: its rows then begin at the step that the run resumes at"
            text = read_text(BoundedText(self.path, "the log of this training", fix))
            for line in text.splitlines(keepends=True)[1:]:
                first = line.partition(",")[0]
                # A killed run may have left half a line.
                if line.endswith("\n") and _NUMBER.fullmatch(first) and int(first) <= step:
                    content.write(line)
        write_text(self.path, content.getvalue())
