from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillspec.errors import DistillSpecError
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.load import load_model
from distillspec.models.loading.shared_embeddings import leave_out, put_back
from distillspec.models.surgery.pruning import pruned
from distillspec.recipe.start import PrunedDraftConfig
from distillspec.recipe.written_files import SHARED_EMBEDDINGS

WEIGHT = "model.embed_tokens.weight"


class Folders(NamedTuple):
    draft: Path
    target: Path
    stored: Path


@pytest.fixture
def folders(tiny_pair: Path, tmp_path: Path) -> Folders:
    """A draft with one layer of the target and its embeddings; `stored` does not exist."""
    target = tiny_pair / "target"
    model = pruned(
        load_model(str(target), dtype="auto"), PrunedDraftConfig(kind="pruned", layers=1)
    )
    model.save_pretrained(tmp_path / "draft")
    return Folders(tmp_path / "draft", target, tmp_path / "stored")


def test_embeddings_that_are_left_out_come_back_bit_for_bit(
    folders: Folders, tmp_path: Path
) -> None:
    leave_out(*folders, name="org/target", weight=WEIGHT)
    kept = load_file(folders.stored / "model.safetensors")
    assert WEIGHT not in kept and (folders.stored / "config.json").is_file()
    (tmp_path / "whole").mkdir()
    put_back(folders.stored, folders.target, tmp_path / "whole")
    assert model_digest(tmp_path / "whole") == model_digest(folders.draft)
    load_model(str(tmp_path / "whole"), dtype=torch.float32)
    names = {file.name for file in (tmp_path / "whole").iterdir()}
    assert (
        names == {file.name for file in folders.draft.iterdir()} and SHARED_EMBEDDINGS not in names
    )


def test_what_is_stored_is_no_model_until_its_embeddings_are_back(folders: Folders) -> None:
    leave_out(*folders, name="org/target", weight=WEIGHT)
    with pytest.raises(DistillSpecError, match="without the embeddings of its target") as caught:
        load_model(str(folders.stored), dtype=torch.float32)
    stored = folders.stored
    assert caught.value.fix.startswith(f"name it {stored.parent.name}/{stored.name}: ")


def change(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[WEIGHT][0, 0] += 1.0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_embeddings_that_were_trained_cannot_be_left_out(folders: Folders) -> None:
    change(folders.draft)
    with pytest.raises(DistillSpecError, match="is not the target's") as caught:
        leave_out(*folders, name="org/target", weight=WEIGHT)
    assert "freeze_embeddings" in caught.value.fix
    assert not folders.stored.exists()


def test_another_target_does_not_give_the_embeddings(folders: Folders, tmp_path: Path) -> None:
    leave_out(*folders, name="org/target", weight=WEIGHT)
    other = tmp_path / "draft"  # a model with such a weight
    change(other)
    (tmp_path / "whole").mkdir()
    with pytest.raises(DistillSpecError, match="not the one that the draft was trained with"):
        put_back(folders.stored, other, tmp_path / "whole")
    assert list((tmp_path / "whole").iterdir()) == []
