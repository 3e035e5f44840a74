from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.load import empty_model, load_model, load_tokenizer
from distillspec.models.loading.model_facts import folder_facts
from distillspec.models.surgery.adapters import add_lora
from distillspec.recipe.schema import AdapterConfig


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


def test_a_complete_folder_loads_in_eval_mode_and_the_type_asked_for(folder: Path) -> None:
    model = load_model(str(folder), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert model.name_or_path == str(folder)
    assert load_tokenizer(str(folder)).eos_token_id == 0


def test_tied_weights_are_not_missing(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


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


def test_an_unused_weight_is_named(folder: Path) -> None:
    change_weights(folder, {"model.layers.7.mlp.up_proj.weight": torch.zeros(64, 32)})
    with pytest.raises(DistillSpecError, match=r"model.layers.7.mlp"):
        load(folder)


def test_buffers_and_further_heads_are_left_out_and_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = logits(load(folder))
    odd = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
        "model.layers.1.self_attn.attn.bias": torch.ones(1, 1, 4, 4),
        "model.layers.2.mlp.up_proj.weight": torch.zeros(64, 32),
        "mtp.norm.weight": torch.zeros(32),
    }
    change_weights(folder, odd)
    change_config(folder, num_nextn_predict_layers=1)
    assert torch.equal(logits(load(folder)), before)
    assert "(MTP) are left out (model.layers.2.mlp.up_proj.weight, mtp.norm.weight)" in caplog.text
    assert "buffers that the model computes itself are left out" in caplog.text
    load(folder)
    assert caplog.text.count("(MTP)") == 1  # logged once, although it is loaded twice


def test_the_error_on_an_unused_weight_explains_how_to_remove_it(folder: Path) -> None:
    change_weights(folder, {"v_head.weight": torch.zeros(1, 32)})
    with pytest.raises(DistillSpecError, match="v_head.weight") as caught:
        load(folder)
    assert "save_pretrained(NEW_FOLDER)" in caught.value.fix


# --- the files that are checked are the files that are loaded ------------------------------------


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(torch.arange(20)[None]).logits
    return result


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_an_adapter_next_to_complete_weights_is_not_applied(
    folder: Path, tiny_pair: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = logits(load(folder))
    base = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    adapted = add_lora(base, AdapterConfig(rank=2, targets=("q_proj",)))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    adapted.save_pretrained(folder)
    assert (folder / "adapter_model.safetensors").exists()
    model = load(folder)
    assert torch.equal(logits(model), before)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert "adapter" in caplog.text and f"{tiny_pair}/target" in caplog.text
    assert model_digest(folder) == model_digest(model)


def test_shards_and_an_older_single_file_are_never_mixed_up(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder.parent / "old.safetensors")
    newer = load_model(str(folder), dtype=torch.float32)
    with torch.no_grad():
        newer.model.norm.weight.mul_(2.0)
    (folder / "model.safetensors").unlink()
    newer.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert torch.equal(logits(load(folder)), logits(newer))
    assert model_digest(folder) == model_digest(newer)
    shutil.copy(folder.parent / "old.safetensors", folder / "model.safetensors")
    for read in (load, model_digest, lambda f: folder_facts(str(f))):
        with pytest.raises(DistillSpecError, match="two models"):
            read(folder)


def test_a_distributed_checkpoint_next_to_the_weights_is_not_read(folder: Path) -> None:
    (folder / ".metadata").write_bytes(b"")
    (folder / "__0_0.distcp").write_bytes(b"")
    load(folder)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_snapshot_of_the_hubs_cache_loads_like_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    model = load_model(str(folder), dtype=torch.float32)
    if sharded:
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="20KB")
    cache = tmp_path / "hub" / "models--org--name"
    snapshot = cache / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for part in ("blobs", "refs"):
        (cache / part).mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, cache / "blobs" / f"b{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/b{number}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    again = load("org/name")
    assert torch.equal(logits(again), logits(model))
    assert again.name_or_path == "org/name"
    assert load_tokenizer("org/name").eos_token_id == 0
    assert model_digest(snapshot) == model_digest(folder)


def test_a_models_own_code_is_run_only_where_it_is_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code in two files next to the weights; one file imports the other."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "from .parts_own import scale\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own-llama'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n    scale = scale\n"
    )
    (folder / "parts_own.py").write_text("scale = 7\n")
    code = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    change_config(folder, model_type="own-llama", auto_map=code, architectures=["OwnModel"])
    with pytest.raises(DistillSpecError, match="target cannot be loaded") as caught:
        load(folder)
    assert str(folder) in caught.value.what
    assert "distillspec-view" not in str(caught.value)
    first, second = (
        load_model(str(folder), dtype=torch.float32, trust_remote_code=True) for _ in range(2)
    )
    assert type(first).__name__ == "OwnModel"
    assert first.scale == 7
    assert type(first) is type(second)
    again = tmp_path / "again"
    first.save_pretrained(again)
    assert load_model(str(again), dtype=torch.float32, trust_remote_code=True).scale == 7


def test_two_matrices_that_the_config_ties_stay_two(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = torch.randn(300, 32, generator=torch.Generator().manual_seed(0))
    change_weights(folder, {"lm_head.weight": head})
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    model = load_model(str(folder), dtype=torch.float32)
    assert torch.equal(model.lm_head.weight, head)
    assert model.config.tie_word_embeddings is False
    assert "ties the output head to the embedding, but the weights are two matrices" in caplog.text
    model.resize_token_embeddings(310, mean_resizing=False)  # which ties by the configuration
    assert torch.equal(model.lm_head.weight[:300], head)


def test_equal_matrices_of_a_tied_config_are_one(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change_weights(folder, {"lm_head.weight": stored})
    model = load(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_pickled_weights_are_refused_with_the_way_to_convert_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DistillSpecError, match="pickled") as caught:
        load(folder)
    assert "save_pretrained" in caught.value.fix


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
