"""An output head that scores a part of the vocabulary; other tokens have probability 0.

The draft's last matrix product becomes smaller (VocabTrim, 2506.22694). Tokens with q = 0 cannot be
drafted, so alpha is at most the target's mass on the kept tokens. The output still has the target's
distribution, because q = 0 is a valid draft probability.
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
    """Logits of the kept tokens (long [K], ascending), -inf for all others.

    The full head stays inside with its own parameter. So a tied embedding stays tied, gradients
    reach the kept rows, and removing the trimming gives a plain model.
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
        # While weights change, the rows are gathered in each forward (see `settle_head`).
        rows = self.whole.weight[self.kept] if self.rows is None else self.rows
        bias = None if self.whole.bias is None else self.whole.bias[self.kept]
        logits = F.linear(hidden, rows, bias)
        full = logits.new_full((*logits.shape[:-1], self.whole.out_features), -torch.inf)
        return full.index_copy(-1, self.kept, logits)


def trim_head(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Let `model` score only these tokens, in place.

    Raises:
        DistillSpecError: The output head is no plain matrix.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise DistillSpecError(
            f"the output head of {type(model).__name__} is no plain matrix and cannot be trimmed",
            where="pair.draft_head",
            fix="remove pair.draft_head for this draft, and the output head from lora.targets",
        )
    tokens = torch.tensor(sorted(kept), device=head.weight.device)
    model.set_output_embeddings(TrimmedHead(head, tokens))


def whole_head(model: PreTrainedModel) -> None:
    """Let `model` score its full vocabulary again, in place."""
    head = model.get_output_embeddings()
    if isinstance(head, TrimmedHead):
        model.set_output_embeddings(head.whole)


@contextmanager
def with_whole_head(model: PreTrainedModel) -> Iterator[tuple[int, ...] | None]:
    """Within this context `model` has its full head, as it is saved; yields the kept tokens."""
    head = model.get_output_embeddings()
    kept = kept_tokens(model)
    whole_head(model)
    try:
        yield None if kept is None else tuple(kept.tolist())
    finally:
        model.set_output_embeddings(head)


def kept_tokens(model: PreTrainedModel) -> Tensor | None:
    """The tokens that a trimmed head scores, long [K], ascending; None for a full head."""
    head = model.get_output_embeddings()
    return head.kept if isinstance(head, TrimmedHead) else None


def settle_head(model: PreTrainedModel) -> None:
    """Gather the kept rows once, for decoding with weights that no longer change."""
    head = model.get_output_embeddings()
    if isinstance(head, TrimmedHead):
        head.rows = head.whole.weight.detach()[head.kept]
