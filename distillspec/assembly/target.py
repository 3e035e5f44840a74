"""The target of a run: in this process, split over all processes, or behind an endpoint.

`target_of` chooses one `Target` for a run. The verbs ask it instead of the recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from distillspec.assembly.local_target import LocalTarget, ShardedTarget
from distillspec.assembly.pair import ModelPair
from distillspec.assembly.served_target import EndpointTrial, ServedTarget
from distillspec.assembly.training import TrainingText
from distillspec.corpus.sources.prompts import PromptSets
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Settle = Callable[[dict[str, Tokens] | None], ModelPair]
"""Chooses the trimmed head by the target's stored responses, which are None if the recipe trains on
other text. Returns the pair with that head; the same pair if the recipe trims no head.
"""


class Target(Protocol):
    """The questions of a run to its target."""

    @property
    def evaluates(self) -> bool:
        """Whether this process can decode with the target, and so measure speed-up."""

    def control_refusal(self) -> str | None:
        """Why no control draft can be trained; None if it can."""

    def try_out(self, pair: ModelPair, sets: PromptSets) -> EndpointTrial | None:
        """Ask a few prompts and store nothing; None if the target's weights are loaded."""

    def training_text(
        self, pair: ModelPair, sets: PromptSets, world: World, settle: Settle
    ) -> TrainingText:
        """The text that drafts are trained on. Each rank writes its part of what is missing."""

    def fill_stores(self, pair: ModelPair, sets: PromptSets, world: World) -> list[str]:
        """Write all stores that training reads; return a line about each, for `generate`."""

    def export_proof(
        self, pair: ModelPair, draft: PreTrainedModel, sets: PromptSets, folder: Path
    ) -> str:
        """Compare the exported draft in `folder` with the trained `draft`; return the result."""

    def closing_lines(self, folder: Path, draft: Path) -> list[str]:
        """The lines that a run prints in place of an evaluation."""


def target_of(pair: ModelPair, console: Terminal) -> Target:
    """The target of a loaded pair; `console` shows progress."""
    if pair.frozen is None:
        return ServedTarget(console)
    return ShardedTarget() if pair.is_split else LocalTarget()
