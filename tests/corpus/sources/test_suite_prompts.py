"""What a suite brings: limits, one source or several, and the turns they take."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.suite_prompts import SuitePrompts, load_suite_prompts
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import DataConfig
from distillspec.recipe.prompt_plan import PromptsConfig

DATA = DataConfig.model_validate(
    {"source": {"kind": "jsonl", "path": "unread.jsonl"}, "max_prompt_tokens": 30}
)
TWO = ("code", "prose")


def rows(path: Path, *prompts: str, **fields: Any) -> dict[str, Any]:
    path.write_text("".join(json.dumps({"prompt": p, **fields}) + "\n" for p in prompts))
    return {"kind": "jsonl", "path": str(path)}


def loaded(
    plan: dict[str, Any], tokenizer: PreTrainedTokenizerFast, *, room: int = 1000
) -> SuitePrompts:
    result = PromptsConfig.model_validate(plan)
    return load_suite_prompts(result, DATA, tokenizer, seed=0, room=room)


@pytest.fixture
def two(tmp_path: Path) -> dict[str, Any]:
    return {name: rows(tmp_path / name, *(f"{name} {i}" for i in range(8))) for name in TWO}


def test_sources_come_in_turn_or_alternating_and_name_the_categories(
    two: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    in_turn = loaded({"count": 5, "sources": two}, tokenizer).prompts
    assert [p.category for p in in_turn] == ["code"] * 3 + ["prose"] * 2
    assert all(p.text.startswith(p.category or "?") for p in in_turn)
    mixed = loaded({"count": 5, "sources": two, "order": "alternating"}, tokenizer).prompts
    assert [p.category for p in mixed] == ["code", "prose", "code", "prose", "code"]
    assert {p.key for p in mixed} == {p.key for p in in_turn}
    assert in_turn[0].key.startswith("code/code:")


def test_prompts_that_are_only_read_come_after_the_decoded_ones(
    two: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    plan = {"count": 4, "texts": 10, "sources": two}
    result = loaded(plan, tokenizer).prompts
    assert [p.category for p in result[:4]] == ["code", "code", "prose", "prose"]
    assert [p.category for p in result[4:]] == ["code"] * 3 + ["prose"] * 3
    assert result[:4] == loaded({"count": 4, "sources": two}, tokenizer).prompts


def test_a_source_that_gives_less_than_its_part_is_an_error(
    tmp_path: Path, two: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    few = {**two, "prose": rows(tmp_path / "few", "one")}
    with pytest.raises(DistillSpecError, match="gives 1 prompts, and its part is 2") as caught:
        loaded({"count": 4, "sources": few}, tokenizer)
    assert caught.value.where == "prompts.sources.prose"
    assert len(loaded({"count": 2, "texts": 6, "sources": few}, tokenizer).prompts) == 4
    odd = {"kind": "adversarial", "prompts": 1}
    with pytest.raises(DistillSpecError, match="gives 1 prompts"):
        loaded({"count": 4, "sources": {**two, "prose": odd}}, tokenizer)


def test_an_empty_source_among_others_is_an_error_that_names_it(
    tmp_path: Path, two: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    empty = {**two, "prose": rows(tmp_path / "empty")}
    with pytest.raises(DistillSpecError, match="has no rows") as caught:
        loaded({"count": 4, "sources": empty}, tokenizer)
    assert "empty" in caught.value.where


def test_the_plans_limit_comes_before_the_recipes_and_the_contexts_before_both(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = rows(tmp_path / "rows", "x" * 20, "y" * 40, "z" * 60)

    def limited(room: int = 1000, **plan: int) -> tuple[int, list[str]]:
        result = loaded({"source": source, **plan}, tokenizer, room=room)
        return len(result.prompts), result.notes

    assert limited() == (
        1,
        ["prompts.source: 2 of 3 usable prompts are longer than data.max_prompt_tokens=30 tokens: "
         "left out"],
    )  # fmt: skip
    assert limited(max_tokens=60) == (3, [])
    few, (note,) = limited(max_tokens=50)
    assert few == 2
    assert "longer than prompts.max_tokens=50 tokens" in note
    few, (note,) = limited(max_tokens=60, room=45)
    assert few == 2
    assert "longer than what fits into the models' contexts, 45 tokens" in note
    with pytest.raises(DistillSpecError) as caught:
        limited(max_tokens=60, room=5)
    assert caught.value.fix == "shorten the rows"
    with pytest.raises(DistillSpecError) as caught:
        limited(max_tokens=10)
    assert caught.value.where == "prompts.max_tokens=10"
    assert caught.value.fix.startswith("raise prompts.max_tokens ")


def test_prompts_left_out_are_counted_by_category(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    lengths = {"qa": 5, "rag": 50, "sum": 60}
    path = tmp_path / "rows"
    path.write_text(
        "".join(json.dumps({"prompt": "x" * n, "of": name}) + "\n" for name, n in lengths.items())
    )
    source = {"kind": "jsonl", "path": str(path), "category": "of"}
    result = loaded({"source": source}, tokenizer)
    assert [p.category for p in result.prompts] == ["qa"]
    (note,) = result.notes
    assert "rag 1" in note and "sum 1" in note and "qa" not in note


def test_questions_without_a_chat_template_are_noted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = {**rows(tmp_path / "rows", "2+2?"), "as_chat": "if-template"}
    asked = loaded({"source": source}, tokenizer)
    assert (asked.prompts[0].kind, asked.notes) == ("chat", [])
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    asked = loaded({"source": source}, plain)
    assert asked.prompts[0].kind == "plain"
    assert "no chat template" in asked.notes[0]


def test_one_source_keeps_its_own_categories_which_take_turns(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows"
    lines = [{"prompt": f"p{i}", "of": "ab"[i > 5]} for i in range(8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"kind": "jsonl", "path": str(path), "category": "of"}
    result = loaded({"source": source, "count": 4}, tokenizer).prompts
    assert sorted(p.category or "" for p in result) == ["a", "a", "b", "b"]


def test_a_file_stands_in_for_a_data_set_of_the_hub(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "rows"
    path.write_text('{"question": "2+2?", "turns": 1, "level": "easy"}\n')
    source = {
        "kind": "hub",
        "dataset": "nobody/has-this-data-set",
        "prompt": "question",
        "category": "level",
        "path": str(path),
    }
    (prompt,) = loaded({"source": source}, tokenizer).prompts
    assert (prompt.text, prompt.category) == ("2+2?", "easy")


def test_prose_and_odd_prompts_need_nothing_but_this_machine(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    sources = {"prose": {"kind": "python-topics"}, "odd": {"kind": "adversarial"}}
    result = loaded({"count": 10, "sources": sources}, tokenizer).prompts
    assert [p.kind for p in result] == ["prose"] * 5 + ["adversarial"] * 5
    assert all(2 <= len(p.tokens) <= 30 for p in result)
    assert result[0].text.endswith(tokenizer.decode(result[0].tokens))
    alone = loaded({"count": 4, "source": {"kind": "adversarial"}}, tokenizer).prompts
    assert [p.category for p in alone] == ["random", "repeated", "short", "long"]
