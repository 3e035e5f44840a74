"""Training rows for Lightning: each process its part of every step, from any step on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule

from distillspec.corpus.batches.order import Choice, SequenceOrder
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.responses import prompts_digest
from distillspec.errors import DistillSpecError
from distillspec.recipe.distill import Origin, SourceShares


class TrainingRow(NamedTuple):
    """prompt: with its response where `origin` is "fixed" or "target"; else it is still to come."""

    prompt: Prompt
    origin: Origin


class PromptRows(LightningDataModule):
    """Yields, for each optimizer step, this process's rows of it: a `list[Row]`.

    The sequences of a step depend on (seed, step) alone, whatever the number of processes: they are
    sorted by prompt length and dealt out in turn, so that processes get rows of like lengths.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        shares: SourceShares,
        *,
        batch_size: int,
        seed: int,
        target_responses: Mapping[str, Tokens] | None = None,
        bucket_steps: int = 1,
    ) -> None:
        """batch_size: sequences per optimizer step, over all processes. bucket_steps: steps whose
        sequences are sorted by length together.

        Errors: a share of fixed responses of data that has none.
        """
        super().__init__()
        check_fixed(prompts, shares)
        assert target_responses is not None or not shares.stored.get("target")
        self._prompts = list(prompts)
        self._targets = target_responses or {}
        self._order = SequenceOrder(
            len(prompts),
            shares,
            batch_size=batch_size,
            seed=seed,
            lengths=[self._length(prompt) for prompt in prompts],
            bucket_steps=bucket_steps,
        )
        self._identity = {
            "prompts": prompts_digest(prompts),
            "batch_size": batch_size,
            "seed": seed,
            "bucket_steps": bucket_steps,
        }
        self.step = 0  # optimizer steps whose rows have been handed to the trainer

    def rows(self, step: int, rank: int = 0, world: int = 1) -> list[TrainingRow]:
        """The rows of `step` that process `rank` of `world` trains on."""
        choices = sorted(
            self._order.step(step), key=lambda c: (len(self._prompts[c.place].tokens), c)
        )
        return [self._row(choice) for choice in choices[rank::world]]

    def train_dataloader(self) -> _Steps:
        return _Steps(self)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The rows of the step that begins now.

        Lightning's iterator is a batch ahead, maybe since before a checkpoint was loaded: what it
        fetched is only a turn, and `step` counts the turns that training has really taken.
        """
        rows = self.rows(self.step, *self._process())
        self.step += 1
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, **self._identity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the saved step. Errors: other prompts, batch size or seed than saved."""
        differing = [k for k, v in self._identity.items() if state_dict.get(k) != v]
        if differing:
            raise DistillSpecError(
                f"the training data are not those of the checkpoint: {', '.join(differing)} differ",
                where="data, distill.batch_size, seed",
                fix="restore the recipe and the data of this run, or start a new run",
            )
        self.step = int(state_dict["step"])

    def _length(self, prompt: Prompt) -> int:
        """Tokens, of the text as far as it is known."""
        response = self._targets.get(prompt.key) or prompt.response or ()
        return len(prompt.tokens) + len(response)

    def _process(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _row(self, choice: Choice) -> TrainingRow:
        prompt = self._prompts[choice.place]
        if choice.origin == "target":
            prompt = prompt._replace(response=self._targets[prompt.key])
        elif choice.origin != "fixed":
            prompt = prompt._replace(response=None)
        return TrainingRow(prompt, choice.origin)


class _Steps:
    """An endless iterable over the steps that follow the module's own."""

    def __init__(self, module: PromptRows) -> None:
        self._module = module

    def __iter__(self) -> Iterator[list[TrainingRow]]:
        step = self._module.step
        while True:
            yield self._module.rows(step, *self._module._process())
            step += 1


def check_fixed(prompts: Sequence[Prompt], shares: SourceShares) -> None:
    """DistillSpecError where responses of the data are asked for and some prompts have none."""
    without = sum(prompt.response is None for prompt in prompts)
    if shares.fixed and without:
        raise DistillSpecError(
            f"{without} of {len(prompts)} prompts have no response of their own",
            where=f"distill.source.fixed={shares.fixed:g}",
            fix="name the field with data.source.response=..., fill it in every row, or take "
            "responses from the target or the draft: distill.source.target=1, fixed=0",
        )
