"""No held-out text is trained on: sides share no prompt and no document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.prompts import load_prompts
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import DataConfig


def rows_file(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "jsonl", "path": str(path)}


def data(source: dict[str, Any], **values: Any) -> DataConfig:
    return DataConfig.model_validate({"source": source, "held_out_percent": 20.0, **values})


def numbered(count: int, name: str = "p") -> list[dict[str, Any]]:
    return [{"prompt": f"{name}{i}?", "response": f"r{i}"} for i in range(count)]


def test_no_training_prompt_shares_a_document_with_a_given_held_out_source(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{**row, "talk": i // 3} for i, row in enumerate(numbered(60))]
    source = {**rows_file(tmp_path / "a.jsonl", rows), "document": "talk"}
    others = [{"prompt": f"another turn of {i}", "talk": i} for i in range(5)]
    held_out = {**rows_file(tmp_path / "b.jsonl", others), "document": "talk"}
    sets = load_prompts(data(source, held_out=held_out), tokenizer, seed=0)
    assert len(sets.training) == 60 - 5 * 3
    assert not {p.document for p in sets.training} & {p.document for p in sets.held_out}
    assert sets.notes == ["15 training prompts are held out, or of a held-out document: left out"]


def test_rows_have_one_side_each_and_copies_of_a_prompt_the_same(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    sets = load_prompts(data(rows_file(tmp_path / "a.jsonl", numbered(60) * 2)), tokenizer, seed=0)
    training, held_out = ({p.text for p in side} for side in (sets.training, sets.held_out))
    assert not training & held_out
    assert len(sets.training) + len(sets.held_out) == 120
    assert len({p.key for p in sets.training}) == len(sets.training)


def test_a_given_held_out_source_is_held_out_entirely(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = rows_file(tmp_path / "a.jsonl", numbered(30))
    second = rows_file(tmp_path / "b.jsonl", [*numbered(8, "q"), *numbered(2)])
    sets = load_prompts(data(source, held_out=second), tokenizer, seed=0)
    assert len(sets.held_out) == 10
    assert {p.text for p in sets.training} == {f"p{i}?" for i in range(2, 30)}
    assert sets.notes == ["2 training prompts are held out, or of a held-out document: left out"]


def test_a_split_that_leaves_one_side_empty_is_an_error(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = rows_file(tmp_path / "a.jsonl", numbered(3))
    for percent, counts in ((0.001, (3, 0)), (99.999, (0, 3))):
        with pytest.raises(DistillSpecError) as caught:
            load_prompts(data(source, held_out_percent=percent), tokenizer, seed=0)
        training, held_out = counts
        words = f"3 rows or conversations, of which {training} are for training and {held_out} held"
        assert words in caught.value.what
        assert f"held_out_percent={percent:g}" in caught.value.where
        assert "add rows: more than 100000 rows" in caught.value.fix


def test_a_held_out_source_of_one_file_needs_no_second(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is held out, so there is nothing to divide."""
    (tmp_path / "one_file").mkdir()
    (tmp_path / "one_file" / "__init__.py").write_text(
        "def first(argument):\n    result = argument + 1\n    return result\n" * 3
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    held_out = {"kind": "python-source", "packages": ["one_file"], "include": ["*.py"]}
    source = rows_file(tmp_path / "a.jsonl", numbered(3))
    sets = load_prompts(data(source, held_out=held_out), tokenizer, seed=0)
    assert {prompt.document for prompt in sets.held_out} == {"one_file/__init__.py"}
    assert len(sets.training) == 3
