from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.gguf_file import converted_folder
from distillspec.recipe.model_line import head_text, local_config, model_line, tokenizer_line

EMPTY = b"\x02" + b"\0" * 7 + b"{}"  # a safetensors file of no tensors


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`model` in the working folder, with all that a model needs."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        Path("model", file).write_bytes(EMPTY if file.endswith("safetensors") else b"{}")
    return Path("model")


def test_a_whole_folder_is_named(folder: Path) -> None:
    assert model_line("model", "here") == "local folder model"
    assert tokenizer_line("model", "here") == "taken from model"
    assert local_config("model") == {}


def test_what_is_left_out_of_a_folder_is_named(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "o/b"}')
    assert "the adapter next to them (of o/b) is not" in model_line("model", "here")


@pytest.mark.parametrize(
    "config", [{"model_type": "mamba2"}, {"layer_types": ["linear_attention", "full_attention"]}]
)
def test_a_running_state_is_refused_where_the_model_decodes(
    folder: Path, config: dict[str, object]
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert model_line("model", "r.yaml: start_from") == "local folder model"
    with pytest.raises(DistillSpecError, match="cannot be rolled back") as caught:
        model_line("model", "r.yaml: pair.draft", decodes=True)
    assert caught.value.where == "r.yaml: pair.draft: model"


def test_a_gguf_file_is_named_with_its_conversion(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("tiny.gguf").write_bytes(b"GGUF")
    goal = converted_folder(Path("tiny.gguf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "found")
    assert (
        model_line("tiny.gguf", "here") == f"GGUF file tiny.gguf; it would be converted to {goal}"
    )
    assert local_config("tiny.gguf") is None
    folder.parent.joinpath(goal.parent).mkdir(parents=True)
    folder.rename(goal)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert model_line("tiny.gguf", "here") == f"GGUF file tiny.gguf, converted to {goal}"
    assert local_config("tiny.gguf") == {}


def test_a_gguf_file_needs_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for line in (model_line, tokenizer_line):
        with pytest.raises(DistillSpecError, match="package 'gguf'") as caught:
            line("tiny.gguf", "r.yaml: pair.target")
        assert caught.value.where == "r.yaml: pair.target: tiny.gguf"


def test_a_hub_id_would_be_fetched_and_a_missing_folder_is_none(folder: Path) -> None:
    for line in (model_line, tokenizer_line):
        assert "fetched from the Hub" in line("org/name", "here")
        with pytest.raises(DistillSpecError, match="no such model folder"):
            line("./nowhere", "here")
    assert local_config("org/name") is None


def test_a_head_is_counted_or_named_by_the_drafts_folder(folder: Path) -> None:
    counted = "the 3 tokens most frequent in the stored responses"
    for draft in (None, "org/name", "model"):
        assert head_text(draft, 3, "here", counts_text=True) == counted
    # What a Hub repository names is not known yet.
    assert head_text("org/name", 3, "here", counts_text=False) == counted
    named = folder / "hot_token_ids.json"
    named.write_text("[0, 5, 11]")
    for counts in (False, True):
        text = head_text("model", 3, "here", counts_text=counts)
        assert text == "the 3 tokens in hot_token_ids.json of model"
    assert head_text("model", 4, "here", counts_text=True).startswith("the 4 tokens most frequent")


@pytest.mark.parametrize(
    ("tokens", "words", "fix"),
    [
        ("[0, 5, 11]", "has 3 tokens in hot_token_ids.json", "or set pair.draft_head.keep=3"),
        (None, "has no hot_token_ids.json", "give distill.source a share of target or fixed"),
        ("[0, ", "the tokens of a trimmed head", "export the draft again"),
    ],
)
def test_a_head_without_text_to_count_in_is_refused_before_training(
    folder: Path, tokens: str | None, words: str, fix: str
) -> None:
    if tokens is not None:
        (folder / "hot_token_ids.json").write_text(tokens)
    with pytest.raises(DistillSpecError, match=words) as caught:
        head_text("model", 4, "r.yaml: pair.draft_head", counts_text=False)
    assert caught.value.fix is not None and fix in caught.value.fix
