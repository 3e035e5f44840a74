from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.models.loading.checkpoint_view import checkpoint_view
from distillspec.recipe.model_files import model_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with more in it than the model: an adapter, an older file, code."""
    path = tmp_path / "some-model"
    (path / "part").mkdir(parents=True)
    listed = '{"weight_map": {"a": "part/w.safetensors"}}'
    for name, text in {
        "config.json": "{}",
        "generation_config.json": "{}",
        "model.safetensors.index.json": listed,
        "part/w.safetensors": "x",
        "old.safetensors": "x",
        "adapter_config.json": "{}",
        "adapter_model.safetensors": "x",
        "modeling.py": "",
    }.items():
        (path / name).write_text(text)
    return path


def seen(folder: Path, *, with_code: bool) -> set[str]:
    with checkpoint_view(model_files(folder), with_code=with_code) as view:
        assert view.name == "some-model"
        names = {p.relative_to(view).as_posix() for p in view.rglob("*") if p.is_file()}
        assert (view / "part/w.safetensors").read_text() == "x"
    assert not view.exists()
    return names


def test_only_what_makes_the_model_is_seen(folder: Path) -> None:
    assert seen(folder, with_code=False) == {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "part/w.safetensors",
    }


def test_a_models_own_code_is_seen_where_it_is_trusted(folder: Path) -> None:
    assert seen(folder, with_code=True) - seen(folder, with_code=False) == {"modeling.py"}
    assert len(list(folder.iterdir())) == 8  # nothing of the folder is touched
