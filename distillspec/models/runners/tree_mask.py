"""Several texts in one row of a cache: who sees whom, and at which position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.runners.cache import is_plainly_causal
from distillspec.models.runners.encoder_decoder import is_seq2seq


class TreePaths:
    """The paths of a tree that grows after a text: by slot, the tree's slots that it sees."""

    def __init__(self) -> None:
        self._text: int | None = None  # length of the text before the tree
        self._seen: list[bytes] = []  # by slot after the text: a byte a slot, 1 where it is seen
        self._depths: list[int] = []

    def add(self, length: int, parents: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Slots from `length` on, with these parents -> positions long [n], bool [n, length + n].

        The second says which slots each new one sees: the text, its path, itself. Rows are bytes
        while they are made: a tensor's elements one by one take longer than a small forward.
        """
        if self._text is None:
            self._text = length
        text = self._text
        assert length == text + len(self._seen)
        first, width = len(self._seen), length + len(parents)
        for row, parent in enumerate(parents):
            above = parent - text  # in the tree; -1: the end of the text
            assert -1 <= above < len(self._seen), "a parent is fed before its child"
            before = self._seen[above] if above >= 0 else b"\1" * text
            self._seen.append(before.ljust(length + row, b"\0") + b"\1")
            self._depths.append(self._depths[above] + 1 if above >= 0 else 0)
        rows = bytearray().join(seen.ljust(width, b"\0") for seen in self._seen[first:])
        visible = torch.frombuffer(rows, dtype=torch.bool).view(len(parents), width)
        return torch.tensor([text + depth for depth in self._depths[first:]]), visible

    def kept(self, text: int, slots: Sequence[int]) -> TreePaths:
        """What is left when these slots, ascending, move up to a text of `text` slots."""
        paths = TreePaths()
        if not slots:
            return paths
        assert self._text is not None, "there was a tree"
        paths._text = text
        for place, slot in enumerate(slots):
            seen = self._seen[slot - self._text]
            above = bytes(seen[other] for other in slots[:place])
            paths._seen.append(b"\1" * text + above + b"\1")
            paths._depths.append(sum(above))
        return paths


def check_takes_a_tree(model: PreTrainedModel) -> None:
    """DistillSpecError for a model whose attention takes no mask of ours."""
    if is_seq2seq(model):
        raise DistillSpecError(
            f"{type(model).__name__} has an encoder, and several drafts in one forward are for "
            "causal models",
            where=str(model.name_or_path or type(model).__name__),
            fix="choose a method with one draft (draft: {kind: chain})",
        )
    if not is_plainly_causal(model):
        raise DistillSpecError(
            f"{type(model).__name__} takes no attention mask of ours, so it cannot read several "
            "drafts in one forward",
            where=str(model.name_or_path or type(model).__name__),
            fix="choose a method with one draft (draft: {kind: chain})",
        )
