"""A model's runner in another process: what is sent, and how the process makes the runner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.models.loading.transformers_calls import quiet
from distillspec.models.runners.compiled import make_runner
from distillspec.models.vocabulary.cross_tokenizer import token_map_of
from distillspec.models.vocabulary.trimmed_head import settle_head, trim_head, with_whole_head
from distillspec.runtime.os_errors import explain
from distillspec.runtime.temporary_files import scratch_folder
from distillspec.speculation.runner import Runner

_REMOTE = "transformers_modules"  # where transformers puts code that came with a model


@dataclass(frozen=True)
class RunnerFactory:
    """Small and picklable. A call loads the model and makes its runner (see `make_runner`).

    Attributes:
        folder: The saved model.
        dtype: Type of the weights.
        device: Device of the model.
        trusts_code: Whether the model's own code may run, as in this process.
        kind: "eager" or "compiled".
        capacity: Tokens of the longest text.
        block_sizes: Numbers of tokens fed at once.
        tree_sizes: The same for trees.
        vocab_size: Logits are trimmed to this many tokens.
        kept: Tokens of a trimmed head, else None.
    """

    folder: str
    dtype: torch.dtype
    device: str
    trusts_code: bool
    kind: Literal["eager", "compiled"]
    capacity: int
    block_sizes: tuple[int, ...]
    tree_sizes: tuple[int, ...]
    vocab_size: int | None
    kept: tuple[int, ...] | None = None

    def __call__(self) -> Runner:
        model = load_model(
            self.folder,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.trusts_code,
            what="draft",
        )
        # `saved` wrote the full head: trim it again.
        if self.kept is not None:
            trim_head(model, self.kept)
            settle_head(model)
        return make_runner(
            model,
            self.kind,
            self.capacity,
            self.block_sizes,
            tree_sizes=self.tree_sizes,
            vocab_size=self.vocab_size,
        )


@contextmanager
def saved(
    model: PreTrainedModel,
    kind: Literal["eager", "compiled"],
    capacity: int,
    block_sizes: Sequence[int],
    *,
    tree_sizes: Sequence[int] = (),
    vocab_size: int | None = None,
) -> Iterator[RunnerFactory]:
    """Save these weights in a temporary folder and yield a factory for them.

    The other process must have made its runner before the context ends.

    Raises:
        DistillSpecError: The disk is full, or the draft has another tokenizer, which works in one
            process only.
    """
    if token_map_of(model) is not None:
        raise DistillSpecError(
            "a draft with another tokenizer cannot run in another process",
            where="a method with the key parallel",
            fix="remove methods with parallel, or use a draft of the target's family",
        )
    with scratch_folder("draft") as folder:
        try:
            with quiet(), with_whole_head(model) as kept:
                model.save_pretrained(folder)
        except OSError as error:
            raise explain(error, folder) from error
        yield RunnerFactory(
            str(folder),
            model.dtype,
            str(model.device),
            type(model).__module__.startswith(_REMOTE),
            kind,
            capacity,
            tuple(block_sizes),
            tuple(tree_sizes),
            vocab_size,
            kept,
        )
