from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillspec.corpus.sources.documents import documents
from distillspec.corpus.sources.jsonl import jsonl_passages
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import HubSource, JsonlSource, PythonSource


def written(path: Path, count: int) -> Path:
    rows = [{"text": f"sentence {i} of the corpus .", "more": f" And {i}."} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_entire_texts_even_where_prompts_are_cut_from_them(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", 200)
    source = JsonlSource(kind="jsonl", path=str(path), prompt="text", after_words=2)
    files = documents(source, 10.0)
    texts = [file.text for side in files for file in side]
    assert sorted(texts) == sorted(f"sentence {i} of the corpus ." for i in range(200))
    assert 5 <= len(files.held_out) <= 40
    both = documents(source.model_copy(update={"response": "more"}), 10.0)
    assert "sentence 7 of the corpus . And 7." in [file.text for side in both for file in side]
    of_the_hub = HubSource(kind="hub", dataset="someone/corpus", path=str(path), prompt="text")
    assert documents(of_the_hub, 10.0) == files


def test_chats_next_to_the_text_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    chat = [{"role": "user", "content": "hello"}]
    rows = ({"text": f"text {i}", "messages": chat} for i in range(40))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = documents(JsonlSource(kind="jsonl", path=str(path), prompt="text"), 30.0)
    assert {file.text for side in files for file in side} == {f"text {i}" for i in range(40)}


def test_prompts_of_texts_that_are_all_too_short_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", 3)
    source = JsonlSource(kind="jsonl", path=str(path), prompt="text", after_words=6)
    with pytest.raises(DistillSpecError, match="no text has more than 6 words"):
        jsonl_passages(source, None)
    assert len(jsonl_passages(source.model_copy(update={"after_words": 5}), None)) == 3


def test_a_source_of_code_is_its_files() -> None:
    files = documents(PythonSource(kind="python-source", packages=("yaml",)), 30.0)
    assert all(file.key.startswith("yaml/") for side in files for file in side)


def test_a_corpus_that_leaves_a_side_empty_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", 1)
    with pytest.raises(DistillSpecError, match="documents to divide: 1 rows"):
        documents(JsonlSource(kind="jsonl", path=str(path), prompt="text"), 50.0)
