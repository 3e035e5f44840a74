"""The folder of a run: the paths of its files."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from distillspec.errors import DistillSpecError
from distillspec.recipe.loading import dump_yaml, load_recipe
from distillspec.recipe.output import RUNS
from distillspec.recipe.schema import Recipe
from distillspec.report.payback import Cost
from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.temporary_files import remove_stale

BEST = "best.ckpt"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: Of the folder.
    """

    path: Path

    @classmethod
    def begin(cls, recipe: Recipe) -> RunFolder:
        """Make a folder for `recipe`, named by the time, that holds the resolved recipe."""
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        run = cls(RUNS / recipe.name / f"{stamp}-{secrets.token_hex(2)}")
        # Of starts that were killed at this point.
        remove_stale(atomic.make_folder(run.path.parent))
        # The folder appears with its recipe, or not at all.
        with atomic.replacing_folder(run.path, [run.recipe_file.name]) as begun:
            (begun / run.recipe_file.name).write_text(dump_yaml(recipe), encoding="utf-8")
        return run

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def provenance_file(self) -> Path:
        return self.path / "run.json"

    @property
    def identity_file(self) -> Path:
        """Digests of models and text that the run was started with."""
        return self.path / "identity.json"

    @property
    def head_file(self) -> Path:
        """The tokens that a trimmed head of the draft scores, and what they cover."""
        return self.path / "draft_head.json"

    @property
    def training_file(self) -> Path:
        """Results of the training: steps, seconds, best alpha."""
        return self.path / "training.json"

    @property
    def cost(self) -> Cost | None:
        """What the distilled draft took; None before its training has ended."""
        if not self.training_file.exists():
            return None
        fix = "delete the file: the report then names no cost"
        text = BoundedText(self.training_file, "what training came to", fix)
        training = read_json(text, dict[str, Any])
        try:
            return Cost.of(training)
        except (AttributeError, KeyError, TypeError) as error:
            raise text.fault("it does not say what the distilled draft took") from error

    @property
    def metrics(self) -> dict[str, Path]:
        """metrics.csv of each trained draft, by the draft's name."""
        folders = {"distilled": self.path, "control": self.control}
        return {name: folder / "metrics.csv" for name, folder in folders.items() if folder.is_dir()}

    @property
    def trained(self) -> dict[str, Path]:
        """The training folder of each draft that has a best checkpoint, by the draft's name."""
        folders = {"distilled": self.path, "control": self.control}
        return {name: folder for name, folder in folders.items() if (folder / BEST).exists()}

    @property
    def control(self) -> Path:
        """The training folder of the control."""
        return self.path / "control"

    @property
    def control_rates(self) -> Path:
        """The trainings that choose the control's learning rate, while they last."""
        return self.control / "rates"

    @property
    def control_rate_file(self) -> Path:
        """The learning rate of the control, and the alpha of each that was tried."""
        return self.control / "rate.json"

    @property
    def draft(self) -> Path:
        """The exported draft."""
        return self.path / "draft"

    @property
    def evaluations(self) -> Path:
        """Holds a folder for each evaluated suite."""
        return self.path / "evaluation"

    def evaluation(self, suite: str) -> Path:
        """The folder of an evaluated suite."""
        return self.evaluations / suite

    def recipe(self) -> Recipe:
        """The resolved recipe of the run.

        Raises:
            DistillSpecError: It is not of kind distill.
        """
        recipe = load_recipe(self.recipe_file, is_stored=True)
        if not isinstance(recipe, Recipe):
            raise DistillSpecError(
                "this folder holds a pretraining run, not a distillation",
                where=str(self.path),
                fix="name the folder of a run that was started from a recipe of kind distill",
            )
        return recipe
