"""A model's runner in another process: what to send there, and how it is made there."""

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
from distillspec.models.vocabulary.cross_tokenizer import bridge_of
from distillspec.models.vocabulary.trimmed_head import settle_head, trim_head, with_whole_head
from distillspec.runtime import atomic
from distillspec.speculation.runner import Runner

_REMOTE = "transformers_modules"  # where transformers puts code that came with a model


@dataclass(frozen=True)
class RunnerFactory:
    """Small and picklable. Calling it loads the model and makes its runner: `make_runner`'s rest.

    capacity: tokens. A model whose own code was allowed here is allowed it there.
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
    kept: tuple[int, ...] | None = None  # tokens of a trimmed head

    def __call__(self) -> Runner:
        model = load_model(
            self.folder,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.trusts_code,
            what="draft",
        )
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
    """A factory for exactly these weights, wherever they come from; they lie on disk meanwhile.

    The other process must have made its runner before the context ends. DistillSpecError if the
    disk is full, and for a draft with a tokenizer of its own: it works in one process only.
    """
    if bridge_of(model) is not None:
        raise DistillSpecError(
            "this draft has a tokenizer of its own: it cannot work in another process",
            where="a method with parallel",
            fix="leave out methods with parallel, or take a draft of the target's family",
        )
    with atomic.scratch_folder("draft") as folder:
        try:
            with quiet(), with_whole_head(model) as kept:
                model.save_pretrained(folder)
        except OSError as error:
            raise atomic.explain(error, folder) from error
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
