from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.jsonl import jsonl_passages
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import JsonlSource
from tests.corpus.conftest import chats_of


def source(path: Path) -> JsonlSource:
    return JsonlSource(kind="jsonl", path=str(path))


def test_rows_come_in_the_files_order_and_blank_lines_are_passed_over(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "x"}\n\n{"prompt": "ü\u2028"}\r\n{"prompt": "a"}')
    passages = jsonl_passages(source(path), chats_of(tokenizer))
    assert [p.prompt for p in passages] == ["a", "ü\u2028", "a"]
    assert len({p.key for p in passages}) == 3
    assert all(p.key.startswith("rows.jsonl:") for p in passages)


def test_a_prompt_keeps_its_key_when_rows_move(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"prompt": f"p{i}"}) for i in range(9)]
    path.write_text("\n".join(rows))
    before = {p.key for p in jsonl_passages(source(path), chats_of(tokenizer))}
    path.write_text("\n".join(rows[::-1]))
    assert {p.key for p in jsonl_passages(source(path), chats_of(tokenizer))} == before


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"prompt": "a"', "not JSON"),
        (b"[1, 2]", "not an object"),
        (b'{"prompt": 1}', "'prompt' is a number"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b'{"prompt": "a\0"}', "not UTF-8 text"),
        (b'{"prompt": "well done \\ud83d"}', r"surrogate pair, \\ud83d"),
        (b'{"prompt": "a", "response": "\\udE42 done"}', r"surrogate pair, \\ude42"),
        (b'{"prompt": "a", "more": [{"\\udE42": 1}]}', r"surrogate pair, \\ude42"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_line_is_an_error_with_file_and_number(
    line: bytes, what: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n' + line + b'\n{"prompt": "b"}\n')
    with pytest.raises(DistillSpecError, match=what) as caught:
        jsonl_passages(source(path), chats_of(tokenizer))
    assert caught.value.where == f"{path}, line 3"


def test_both_halves_of_an_emoji_are_a_character(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "\\ud83d\\ude42"}')
    assert [p.prompt for p in jsonl_passages(source(path), chats_of(tokenizer))] == ["\U0001f642"]


def test_a_file_of_chats_that_cannot_be_split_is_an_error_that_shows_both_texts(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    made = copy.deepcopy(tokenizer)
    made.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    path = tmp_path / "rows.jsonl"
    chat = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    path.write_text(json.dumps({"messages": chat}))
    with pytest.raises(DistillSpecError, match=r"<assistant><think>.*<assistant>4") as caught:
        jsonl_passages(source(path), chats_of(made))
    assert "line 1" in caught.value.where
    assert "template_variables" in caught.value.fix


def test_files_that_are_no_jsonl_are_errors(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}'))
    for name, what in [
        ("empty.jsonl", "no rows"),
        ("packed.jsonl.gz", "not UTF-8"),
        ("absent.jsonl", "cannot be read"),
        ("", "a folder"),
    ]:
        with pytest.raises(DistillSpecError, match=what):
            jsonl_passages(source(tmp_path / name), chats_of(tokenizer))


def test_a_category_that_no_row_has_is_an_error_of_the_file(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "kind": "x"}\n{"prompt": "b"}\n')
    rows = source(path)
    result = jsonl_passages(rows.model_copy(update={"category": "kind"}), chats_of(tokenizer))
    assert [p.category for p in result] == ["x", None]
    with pytest.raises(DistillSpecError, match="no row has a category") as caught:
        jsonl_passages(rows.model_copy(update={"category": "sort"}), chats_of(tokenizer))
    assert caught.value.where == str(path)
