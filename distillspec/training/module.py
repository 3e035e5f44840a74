"""The LightningModule of the draft: wiring without formulas or masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import nn

from distillspec.corpus.batches.batching import Batch
from distillspec.corpus.batches.data_module import TrainingRow
from distillspec.divergence.reduction import DivergenceSums
from distillspec.training.loss_inputs import TargetOutputs
from distillspec.training.optimizer import optimizers
from distillspec.training.step import Step
from distillspec.training.strategy import make_update, shard
from distillspec.training.token_weights import TokenWeights


class DistillModule(LightningModule):
    """Its only submodule is the draft. The step's objective holds the target."""

    def __init__(self, draft: nn.Module, step: Step, *, fsdp2: bool) -> None:
        super().__init__()
        # A step runs several backward passes and updates the weights itself.
        self.automatic_optimization = False
        self.draft = draft
        self.step = step
        self._fsdp2 = fsdp2

    def configure_model(self) -> None:
        if self._fsdp2:
            assert self.device_mesh is not None
            shard(self.draft, self.device_mesh)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return optimizers(self.draft, self.step.recipe.optimizer)

    def on_fit_start(self) -> None:
        self.step.update = make_update(self.trainer, clip_norm=self.step.recipe.optimizer.clip_norm)

    def transfer_batch_to_device(
        self, batch: Sequence[TrainingRow], device: torch.device, dataloader_idx: int
    ) -> Sequence[TrainingRow]:
        """Leave the rows as they are: the step moves each micro-batch to the device."""
        return batch

    def forward(
        self, batch: Batch, outputs: TargetOutputs, weights: TokenWeights | None
    ) -> DivergenceSums:
        """The loss of one micro-batch, called through the strategy's wrapper.

        Autocast begins here, because DeepSpeed's wrapper turns off any outer autocast.
        """
        with self.step.autocast(batch.tokens.device):
            return self.step.objective.loss(self.draft, batch, outputs, weights)

    def training_step(self, rows: Sequence[TrainingRow]) -> None:
        self.step.run(self.trainer, self.draft, rows)
