"""The data module of training: it gives each process its rows of every step, from any step on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from lightning.pytorch import LightningDataModule

from distillspec.corpus.batches.order import Choice, SequenceOrder
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.responses import prompts_digest
from distillspec.errors import DistillSpecError
from distillspec.recipe.text_source import Origin, SourceShares


class TrainingRow(NamedTuple):
    """One sequence to train on.

    Attributes:
        prompt: The prompt, with its response if `origin` is "fixed" or "target".
        origin: Where the response comes from.
    """

    prompt: Prompt
    origin: Origin


class HasPhase(Protocol):
    """A run that knows which phase of its schedule it is in, from 0."""

    phase: int


class _FirstPhase:
    phase = 0


class PromptRows(LightningDataModule):
    """Yields this process's rows of each optimizer step, a `list[TrainingRow]`.

    The sequences of a step depend on (seed, step) alone, not on the number of processes. They are
    sorted by prompt length and assigned in turn, so that processes get rows of similar lengths.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        shares: Sequence[SourceShares],
        *,
        batch_size: int,
        seed: int,
        target_responses: Mapping[str, Tokens] | None = None,
        bucket_steps: int = 1,
    ) -> None:
        """Prepare the order of the rows.

        Args:
            prompts: The training prompts.
            shares: The share of each origin, in each phase of the training.
            batch_size: Sequences per optimizer step, over all processes.
            seed: Of the order.
            target_responses: The target's responses by prompt key, if the shares need them.
            bucket_steps: Steps whose sequences are sorted by length together.

        Raises:
            DistillSpecError: The shares need fixed responses, which some prompts lack.
        """
        super().__init__()
        for of_phase in shares:
            check_fixed(prompts, of_phase)
            assert target_responses is not None or not of_phase.stored.get("target")
        self._prompts = list(prompts)
        self._targets = target_responses or {}
        lengths = [self._length(prompt) for prompt in prompts]
        # The prompts of a step are the same in every phase; the origins are not.
        self._orders = [
            SequenceOrder(
                len(prompts),
                of_phase,
                batch_size=batch_size,
                seed=seed,
                lengths=lengths,
                bucket_steps=bucket_steps,
            )
            for of_phase in shares
        ]
        self._run: HasPhase = _FirstPhase()
        # A checkpoint can be resumed only if these are the same: they decide the rows.
        self._identity = {
            "prompts": prompts_digest(prompts),
            "batch_size": batch_size,
            "seed": seed,
            "bucket_steps": bucket_steps,
        }
        self.step = 0  # optimizer steps whose rows have been handed to the trainer

    def follow(self, run: HasPhase) -> None:
        """Take the origins of the phase that `run` is in when a step begins."""
        self._run = run

    def rows(self, step: int, rank: int = 0, world: int = 1) -> list[TrainingRow]:
        """The rows of `step` that process `rank` of `world` trains on."""
        choices = sorted(
            self._orders[self._run.phase].step(step),
            key=lambda c: (len(self._prompts[c.place].tokens), c),
        )
        return [self._row(choice) for choice in choices[rank::world]]

    def train_dataloader(self) -> _Steps:
        return _Steps(self)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Replace the fetched batch by the rows of the step that begins now.

        Lightning's iterator is a batch ahead, maybe since before a checkpoint was loaded. The
        content of its batch is therefore ignored; `step` counts the steps that training has taken.
        """
        rows = self.rows(self.step, *self._process())
        self.step += 1
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, **self._identity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the saved step.

        Raises:
            DistillSpecError: Prompts, batch size, seed or bucket_steps differ from the saved ones.
        """
        differing = [k for k, v in self._identity.items() if state_dict.get(k) != v]
        if differing:
            raise DistillSpecError(
                f"the training data differ from the checkpoint's in {', '.join(differing)}",
                where="data, distill.batch_size, distill.bucket_steps, seed",
                fix="restore the recipe and the data of this run, or start a new run",
            )
        self.step = int(state_dict["step"])

    def _length(self, prompt: Prompt) -> int:
        """Number of tokens of the prompt, and of its response if it is known."""
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
    """An endless iterable over the steps from the module's step on."""

    def __init__(self, module: PromptRows) -> None:
        self._module = module

    def __iter__(self) -> Iterator[list[TrainingRow]]:
        # Training reads only that there is a next batch: `on_before_batch_transfer` replaces it.
        step = self._module.step
        while True:
            yield self._module.rows(step, *self._module._process())
            step += 1


def check_fixed(prompts: Sequence[Prompt], shares: SourceShares) -> None:
    """Raise a DistillSpecError if the shares need fixed responses, which some prompts lack."""
    without = sum(prompt.response is None for prompt in prompts)
    if shares.fixed and without:
        raise DistillSpecError(
            f"{without} of {len(prompts)} prompts have no response in the data",
            where=f"distill.source.fixed={shares.fixed:g}",
            fix="name the field with data.source.response=..., fill it in every row, or take "
            "responses from the target or the draft: distill.source.target=1, fixed=0",
        )
