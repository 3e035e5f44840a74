from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file, save_file

from distillspec.assembly.identity import (
    Identity,
    check_identity,
    pair_identity,
    responses_identity,
    text_identity,
    tokenizer_digest,
)
from distillspec.assembly.pair import ModelPair, load_pair
from distillspec.assembly.text import pair_prompts
from distillspec.errors import DistillSpecError
from tests.tiny_plan import recipe, written_plan


class Place(NamedTuple):
    """A folder that a run works in, its pair, and identity.json."""

    folder: Path
    pair: ModelPair
    file: Path

    def found(self) -> Identity:
        """The identity of the pair as it lies on the disk now."""
        return pair_identity(self.pair, self.file)


@pytest.fixture
def place(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_pair, tmp_path / "pair")
    pair = load_pair(recipe(written_plan(tmp_path / "pair", tmp_path)))
    return Place(tmp_path, pair, tmp_path / "identity.json")


def scale(folder: Path) -> None:
    """Other weights of the same names and shapes."""
    file = folder / "model.safetensors"
    weights = {name: weight * 1.5 for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def other_theta(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["rms_norm_eps"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("change", [scale, other_theta])
@pytest.mark.parametrize("name", ["target", "draft"])
def test_an_exchanged_model_is_named_with_its_folder(
    place: Place, name: str, change: Callable[[Path], None]
) -> None:
    assert check_identity(place.file, place.found(), has_trained=False) == []
    assert check_identity(place.file, place.found(), has_trained=True) == []
    change(place.folder / "pair" / name)
    with pytest.raises(DistillSpecError) as caught:
        check_identity(place.file, place.found(), has_trained=True)
    assert {"target": "the target's weights", "draft": "the initial draft"}[
        name
    ] in caught.value.what
    assert f"pair/{name}" in caught.value.where
    assert "restore" in caught.value.fix


def test_a_branch_of_the_hub_that_has_moved_is_named(
    tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("target", "draft"):
        cache = tmp_path / "hub" / f"models--org--{name}"
        for commit in ("a" * 40, "b" * 40):
            shutil.copytree(tiny_pair / name, cache / "snapshots" / commit)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("a" * 40)
    given = {"target": "org/target", "draft": "org/draft"}
    plan = {**written_plan(tiny_pair, tmp_path), "pair": given}
    file = tmp_path / "identity.json"
    pair = load_pair(recipe(plan))
    check_identity(file, pair_identity(pair, file), has_trained=False)
    assert check_identity(file, pair_identity(pair, file), has_trained=True) == []
    for name in ("target", "draft"):
        main = tmp_path / "hub" / f"models--org--{name}" / "refs" / "main"
        main.write_text("b" * 40)
        with pytest.raises(DistillSpecError, match=f"{name}.* changed") as caught:
            check_identity(file, pair_identity(pair, file), has_trained=True)
        assert f"org/{name}" in caught.value.where
        main.write_text("a" * 40)


def test_a_model_that_was_saved_again_is_the_same(place: Place) -> None:
    check_identity(place.file, place.found(), has_trained=False)
    folder = place.folder / "pair" / "target"
    config = json.loads((folder / "config.json").read_text())
    config["transformers_version"] = "6.0"
    (folder / "config.json").write_text(json.dumps(config, indent=8))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(whole)
    assert check_identity(place.file, place.found(), has_trained=True) == []


def test_files_are_read_again_only_where_their_times_have_changed(place: Place) -> None:
    check_identity(place.file, place.found(), has_trained=False)
    stored = json.loads(place.file.read_text())
    for entry in stored["files"].values():
        entry[-1] = "of another content"
    place.file.write_text(json.dumps(stored))
    with pytest.raises(DistillSpecError, match="target's weights"):  # what is kept was believed
        check_identity(place.file, place.found(), has_trained=True)
    for name in ("target", "draft"):
        (place.folder / "pair" / name / "model.safetensors").touch()
    assert check_identity(place.file, place.found(), has_trained=True) == []


def test_other_text_is_named(place: Place) -> None:
    sets = pair_prompts(place.pair)
    check_identity(place.file, text_identity(sets, "rows.jsonl"), has_trained=False)
    edited = [sets.training[0]._replace(response=(1, 2)), *sets.training[1:]]
    other = text_identity(sets._replace(training=edited), "rows.jsonl")
    with pytest.raises(DistillSpecError, match="training prompts or their responses") as caught:
        check_identity(place.file, other, has_trained=True)
    assert caught.value.where.startswith("rows.jsonl; ")
    turned = text_identity(sets._replace(training=sets.training[::-1]), "rows.jsonl")
    assert check_identity(place.file, turned, has_trained=False) == []


def test_other_responses_are_named_beside_what_is_known(place: Place) -> None:
    check_identity(place.file, place.found(), has_trained=False)
    first, turned, other = (
        responses_identity(one, "store")
        for one in (
            {"a": (1, 2), "b": (3,)},
            {"b": (3,), "a": (1, 2)},
            {"a": (1, 2), "b": (4,)},
        )
    )
    check_identity(place.file, first, has_trained=False)
    check_identity(place.file, turned, has_trained=True)
    with pytest.raises(DistillSpecError, match="the target's responses changed"):
        check_identity(place.file, other, has_trained=True)
    assert check_identity(place.file, place.found(), has_trained=True) == []


def test_a_run_of_an_earlier_version_goes_on_with_a_note_and_is_known_then(place: Place) -> None:
    (note,) = check_identity(place.file, place.found(), has_trained=True)
    assert "earlier version" in note
    assert check_identity(place.file, place.found(), has_trained=True) == []


@pytest.mark.parametrize("content", ["", "null", "[]", '{"digests": 1}', "[" * 100_000])
def test_a_damaged_record_is_the_users_error(place: Place, content: str) -> None:
    place.file.write_text(content)
    with pytest.raises(DistillSpecError, match="cannot be read"):
        place.found()


def test_a_damaged_record_of_an_earlier_version_is_the_users_error(place: Place) -> None:
    place.file.with_name("start.json").write_text("[1]")
    with pytest.raises(DistillSpecError, match="cannot be read") as caught:
        place.found()
    assert "start.json" in caught.value.where


def test_a_tokenizer_is_what_it_cuts_and_not_what_a_call_has_set(place: Place) -> None:
    tokenizer = place.pair.tokenizer
    before = tokenizer_digest(tokenizer)
    tokenizer(["a", "longer one"], padding=True, truncation=True, max_length=2)
    assert tokenizer_digest(tokenizer) == before
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_digest(tokenizer) != before
