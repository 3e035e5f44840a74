"""An output head that scores a part of the vocabulary: every other token has probability 0.

The draft's last matrix product shrinks with the tokens it scores (VocabTrim, 2506.22694). What q
rules out cannot be drafted, so alpha is at most the target's mass on what is kept; the output keeps
the target's distribution, as q = 0 is a distribution like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError


class TrimmedHead(nn.Module):
    """Logits of the kept tokens [K, long, ascending], -inf for all others.

    The whole head stays inside, with its own parameter: a tied embedding stays tied, gradients
    reach the rows that are kept, and taking the trimming off again gives a plain model.
    """

    def __init__(self, whole: nn.Linear, kept: Tensor) -> None:
        super().__init__()
        self.whole = whole
        self.kept: Tensor
        self.rows: Tensor | None
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("rows", None, persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., V]."""
        rows = self.whole.weight[self.kept] if self.rows is None else self.rows
        bias = None if self.whole.bias is None else self.whole.bias[self.kept]
        logits = F.linear(hidden, rows, bias)
        nothing = logits.new_full((*logits.shape[:-1], self.whole.out_features), -torch.inf)
        return nothing.index_copy(-1, self.kept, logits)


def trim_head(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Let `model` score these tokens alone, in place; DistillSpecError for a head that is odd."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise DistillSpecError(
            f"the output head of a {type(model).__name__} is no plain matrix to be trimmed",
            where="pair.draft_head",
            fix="leave draft_head out for this draft, and the output head out of lora.targets",
        )
    tokens = torch.tensor(sorted(kept), device=head.weight.device)
    model.set_output_embeddings(TrimmedHead(head, tokens))


def whole_head(model: PreTrainedModel) -> None:
    """Let `model` score its whole vocabulary again, in place."""
    head = model.get_output_embeddings()
    if isinstance(head, TrimmedHead):
        model.set_output_embeddings(head.whole)


@contextmanager
def with_whole_head(model: PreTrainedModel) -> Iterator[tuple[int, ...] | None]:
    """`model` as it is saved, in this context; the tokens that it scores outside of it."""
    head = model.get_output_embeddings()
    kept = kept_tokens(model)
    whole_head(model)
    try:
        yield None if kept is None else tuple(kept.tolist())
    finally:
        model.set_output_embeddings(head)


def kept_tokens(model: PreTrainedModel) -> Tensor | None:
    """The tokens that a model with a trimmed head scores, long [K], ascending; else None."""
    head = model.get_output_embeddings()
    return head.kept if isinstance(head, TrimmedHead) else None


def settle_head(model: PreTrainedModel) -> None:
    """Gather the kept rows once, for decoding with weights and a type that change no more."""
    head = model.get_output_embeddings()
    if isinstance(head, TrimmedHead):
        head.rows = head.whole.weight.detach()[head.kept]
