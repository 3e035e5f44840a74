"""Several texts in one row of a cache: which slots each token sees, and its position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.runners.cache import is_plainly_causal
from distillspec.models.runners.encoder_decoder import is_encoder_decoder


class TreePaths:
    """The paths of a growing tree after a text: the slots that each tree slot sees."""

    def __init__(self) -> None:
        self._text: int | None = None  # length of the text before the tree
        self._seen: list[bytes] = []  # for each slot after the text: one byte per slot, 1 if seen
        self._depths: list[int] = []

    def add(self, length: int, parents: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Add slots with these parents, from slot `length` on.

        Rows are bytes while they are built: writing tensor elements singly takes longer than a
        small forward.

        Returns:
            Positions, long [n], and the slots that each new slot sees, bool [n, length + n]: the
            text, its path, itself.
        """
        if self._text is None:
            self._text = length
        text = self._text
        assert length == text + len(self._seen)
        first, width = len(self._seen), length + len(parents)
        for row, parent in enumerate(parents):
            above = parent - text  # index in the tree; -1 is the end of the text
            assert -1 <= above < len(self._seen), "a parent is fed before its child"
            # The path of the parent, padded with zeros for slots on other paths, then itself.
            before = self._seen[above] if above >= 0 else b"\1" * text
            self._seen.append(before.ljust(length + row, b"\0") + b"\1")
            self._depths.append(self._depths[above] + 1 if above >= 0 else 0)
        rows = bytearray().join(seen.ljust(width, b"\0") for seen in self._seen[first:])
        visible = torch.frombuffer(rows, dtype=torch.bool).view(len(parents), width)
        return torch.tensor([text + depth for depth in self._depths[first:]]), visible

    def kept(self, text: int, slots: Sequence[int]) -> TreePaths:
        """The paths that remain when these slots, ascending, move behind a text of `text` slots."""
        paths = TreePaths()
        if not slots:
            return paths
        assert self._text is not None, "there was a tree"
        paths._text = text
        for index, slot in enumerate(slots):
            # A kept slot sees those kept slots that were on its path; their number is its depth.
            seen = self._seen[slot - self._text]
            above = bytes(seen[ancestor] for ancestor in slots[:index])
            paths._seen.append(b"\1" * text + above + b"\1")
            paths._depths.append(sum(above))
        return paths


def check_takes_a_tree(model: PreTrainedModel) -> None:
    """Raise DistillSpecError for a model whose attention does not accept a prepared mask."""
    if is_encoder_decoder(model):
        raise DistillSpecError(
            f"{type(model).__name__} has an encoder; several drafts in one forward need a "
            "causal model",
            where=str(model.name_or_path or type(model).__name__),
            fix="choose a method with one draft (draft: {kind: chain})",
        )
    if not is_plainly_causal(model):
        raise DistillSpecError(
            f"{type(model).__name__} does not accept a prepared attention mask, which several "
            "drafts in one forward need",
            where=str(model.name_or_path or type(model).__name__),
            fix="choose a method with one draft (draft: {kind: chain})",
        )
