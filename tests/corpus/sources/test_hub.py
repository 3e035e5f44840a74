from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.hub import hub_passages
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import HubSource
from tests.corpus.conftest import TEMPLATE, chats_of

CHAT = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files, as people have them: train and test in JSON lines."""
    task_folder = tmp_path / "task"
    task_folder.mkdir()
    rows = "".join(f'{{"prompt": "p{i}", "response": "r{i}", "more": {i}}}\n' for i in range(3))
    (task_folder / "train.jsonl").write_text(rows)
    (task_folder / "test.jsonl").write_text('{"prompt": "t", "response": "u", "more": 1}\n')
    return task_folder


def hub(
    dataset: Path | str, split: str = "train", prompt: str = "prompt", **more: Any
) -> HubSource:
    return HubSource(kind="hub", dataset=str(dataset), split=split, prompt=prompt, **more)


def test_tools_of_chats_and_columns_of_question_and_answer_are_read(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    made = copy.deepcopy(tokenizer)
    made.chat_template = "{% for t in tools or [] %}[{{ t.name }}]{% endfor %}" + TEMPLATE
    chats = {"messages": [CHAT, CHAT[:1]], "tools": [[{"name": "look"}], []]}
    datasets.Dataset.from_dict(chats).save_to_disk(str(tmp_path / "chats"))
    first, second = hub_passages(hub(tmp_path / "chats"), chats_of(made))
    assert first.prompt.startswith("[look]<user>")
    assert (first.tools, second.tools) == (({"name": "look"},), None)
    sums = {"question": ["2+2?"], "answer": ["4"], "id": [7]}
    datasets.Dataset.from_dict(sums).save_to_disk(str(tmp_path / "sums"))
    (result,) = hub_passages(hub(tmp_path / "sums"), chats_of(tokenizer))
    assert (result.prompt, result.response) == ("2+2?", "4")


def test_a_local_folder_gives_one_passage_a_row(
    folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    passages = hub_passages(hub(folder), chats_of(tokenizer))
    assert [(p.prompt, p.response) for p in passages] == [("p0", "r0"), ("p1", "r1"), ("p2", "r2")]
    assert [p.prompt for p in hub_passages(hub(folder, split="test"), chats_of(tokenizer))] == ["t"]


def test_saved_data_sets_and_their_chats_are_read(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = datasets.Dataset.from_dict({"messages": [CHAT, CHAT[:1]]})
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "many"))
    for name in ("one", "many"):
        passages = hub_passages(hub(tmp_path / name), chats_of(tokenizer))
        assert [p.response for p in passages] == ["4\n", None]
        assert passages[0].prompt == "<user>2+2?\n<assistant>"
    with pytest.raises(DistillSpecError, match="no split 'test'") as caught:
        hub_passages(hub(tmp_path / "many", split="test"), chats_of(tokenizer))
    assert "train" in caught.value.fix


def test_a_missing_column_is_an_error_that_lists_the_columns(
    folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DistillSpecError, match="no column 'question'") as caught:
        hub_passages(hub(folder, prompt="question"), chats_of(tokenizer))
    assert "prompt, response, more" in caught.value.fix


def test_a_column_of_another_type_is_an_error_that_names_the_row(
    folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DistillSpecError, match="'more' is a number") as caught:
        hub_passages(hub(folder, prompt="more"), chats_of(tokenizer))
    assert caught.value.where.endswith("row 0")


def test_what_cannot_be_loaded_is_an_error_with_a_remedy(
    folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "nothing").mkdir()
    for source in (
        hub("nobody/has-this-data-set"),
        hub(folder, split="validation"),
        hub(tmp_path / "nothing"),
    ):
        with pytest.raises(DistillSpecError, match="cannot be loaded") as caught:
            hub_passages(source, chats_of(tokenizer))
        assert "network" in caught.value.fix


def test_a_data_set_without_rows_is_an_error(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "empty").mkdir()
    empty = datasets.Dataset.from_dict({"prompt": ["a"]}).select([])
    empty.to_parquet(str(tmp_path / "empty" / "train.parquet"))
    with pytest.raises(DistillSpecError, match="no data"):
        hub_passages(hub(tmp_path / "empty"), chats_of(tokenizer))


def test_turns_categories_and_fields_inside_columns_are_read(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    columns = {
        "turns": [["first", "second"], ["only"]],
        "meta": [{"task": "qa"}, {"task": "math"}],
        "unread": [1, 2],
    }
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "set"))
    source = hub(tmp_path / "set", turns="turns", category="meta.task")
    result = hub_passages(source, chats_of(tokenizer))
    assert [(p.prompt, p.category) for p in result] == [("first", "qa"), ("only", "math")]
    with pytest.raises(
        DistillSpecError, match="no column 'rounds'$|no column 'rounds'\n"
    ) as caught:
        hub_passages(hub(tmp_path / "set", turns="rounds"), chats_of(tokenizer), "prompts.source")
    assert "prompts.source.turns=..." in caught.value.fix
    with pytest.raises(DistillSpecError, match="no row has a category"):
        hub_passages(hub(tmp_path / "set", turns="turns", category="kind"), chats_of(tokenizer))


def test_named_files_are_read_as_they_are(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = hub("json", files=(str(folder / "test.jsonl"),))
    assert [p.prompt for p in hub_passages(source, chats_of(tokenizer))] == ["t"]


def test_without_a_network_the_error_names_the_way_with_a_file(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DistillSpecError) as caught:
        hub_passages(hub("nobody/has-this-data-set"), chats_of(tokenizer), "prompts.source")
    assert "HF_HUB_OFFLINE" in caught.value.fix
    assert "prompts.source.path=FILE.jsonl" in caught.value.fix
