"""Several texts in one row of a cache: who sees whom, and at which position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.cache import is_plainly_causal


class TreePaths:
    """The paths of a tree that grows after a text: by slot, the tree's slots that it sees."""

    def __init__(self) -> None:
        self._text: int | None = None  # length of the text before the tree
        self._paths: dict[int, tuple[int, ...]] = {}

    def add(self, length: int, parents: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Slots from `length` on, with these parents -> positions long [n], bool [n, length + n].

        The second says which slots each new one sees: the text, its path, itself.
        """
        if self._text is None:
            self._text = length
        text = self._text
        visible = torch.zeros(len(parents), length + len(parents), dtype=torch.bool)
        visible[:, :text] = True
        positions = []
        for row, parent in enumerate(parents):
            slot = length + row
            assert parent == text - 1 or parent in self._paths, "a parent is fed before its child"
            path = (*self._paths.get(parent, ()), slot)
            self._paths[slot] = path
            visible[row, list(path)] = True
            positions.append(text + len(path) - 1)
        return torch.tensor(positions), visible

    def kept(self, text: int, slots: Sequence[int]) -> TreePaths:
        """What is left when these slots, ascending, move up to a text of `text` slots."""
        paths = TreePaths()
        if slots:
            moved = {slot: text + place for place, slot in enumerate(slots)}
            paths._text = text
            paths._paths = {
                new: tuple(moved[slot] for slot in self._paths[old] if slot in moved)
                for old, new in moved.items()
            }
        return paths


def check_takes_a_tree(model: PreTrainedModel) -> None:
    """DistillSpecError for a model whose attention takes no mask of ours."""
    if not is_plainly_causal(model):
        raise DistillSpecError(
            f"{type(model).__name__} takes no attention mask of ours, so it cannot read several "
            "drafts in one forward",
            where=str(model.name_or_path or type(model).__name__),
            mend="choose a method with one draft (draft: {kind: chain})",
        )
