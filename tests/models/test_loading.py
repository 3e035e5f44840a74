from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.loading import empty_model, load_model, load_tokenizer


@pytest.fixture
def folder(tiny_pair: Path, tmp_path: Path) -> Path:
    """A copy of the tiny target that a test may damage."""
    return Path(shutil.copytree(tiny_pair / "target", tmp_path / "target"))


def load(folder: Path | str) -> torch.nn.Module:
    return load_model(str(folder), dtype=torch.float32, what="target")


def change_weights(folder: Path, change: dict[str, Tensor | None]) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in {**weights, **change}.items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_folder_loads_in_eval_mode_and_the_type_asked_for(folder: Path) -> None:
    model = load_model(str(folder), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert model.name_or_path == str(folder)
    assert load_tokenizer(str(folder)).eos_token_id == 0


def test_tied_weights_are_not_missing(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="folder does not exist"):
        load(tmp_path / "absent")


def test_a_file_in_place_of_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(DistillSpecError, match="is a file"):
        load(tmp_path / "model")


def test_a_truncated_file_says_how_much_is_there(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DistillSpecError, match=r"truncated: [\d,]+ bytes of [\d,]+"):
        load(folder)


def test_a_wrong_shape_names_the_weight_and_both_shapes(folder: Path) -> None:
    change_weights(folder, {"model.norm.weight": torch.zeros(31)})
    with pytest.raises(DistillSpecError, match=r"model.norm.weight is \(31,\).*\(32,\)"):
        load(folder)


def test_a_missing_weight_is_named(folder: Path) -> None:
    change_weights(folder, {"model.norm.weight": None})
    with pytest.raises(DistillSpecError, match="1 weights of the target are missing: model.norm"):
        load(folder)


def test_a_weight_without_a_place_is_named(folder: Path) -> None:
    change_weights(folder, {"model.layers.7.mlp.up_proj.weight": torch.zeros(64, 32)})
    with pytest.raises(DistillSpecError, match=r"no place for: model.layers.7.mlp"):
        load(folder)


def test_pickled_weights_are_refused_with_the_way_to_convert_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DistillSpecError, match="pickled") as caught:
        load(folder)
    assert "save_pretrained" in caught.value.mend


def test_an_unknown_architecture_is_one_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unheard-of", "architectures": ["UnheardOf"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DistillSpecError, match="target cannot be loaded"):
        load(folder)


def test_an_impossible_configuration_is_one_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = "many"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DistillSpecError):
        load(folder)


def test_a_folder_without_tokenizer_says_so(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DistillSpecError, match="no tokenizer"):
        load_tokenizer(str(folder))


def test_a_damaged_tokenizer_is_one_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DistillSpecError, match="tokenizer cannot be loaded"):
        load_tokenizer(str(folder))


def test_a_hub_id_without_network_says_so_and_prints_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(DistillSpecError) as caught:
        load("nobody-at-all/no-model")
    assert "cannot be reached" in caught.value.what
    assert caught.value.where == "nobody-at-all/no-model"
    assert capfd.readouterr().err == ""


def test_a_malformed_hub_id_says_so() -> None:
    with pytest.raises(DistillSpecError, match="well-formed"):
        load("nobody/--what..is this")


def test_a_model_that_fits_no_memory_is_the_users_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(DistillSpecError, match="target does not fit into the memory of cpu"):
        load(folder)


def test_an_empty_model_has_the_shapes_alone(folder: Path) -> None:
    whole, empty = load(folder), empty_model(str(folder), dtype=torch.float32, what="target")
    shapes = [
        {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
        for model in (whole, empty)
    ]
    assert shapes[0] == shapes[1]
    assert all(p.device.type == "cpu" for p in empty.parameters())
    with pytest.raises(DistillSpecError, match="does not exist"):
        empty_model(str(folder / "nowhere"), dtype=torch.float32)
