from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.code_files import is_held_out
from distillspec.corpus.sources.prompts import load_prompts, load_source_prompts
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.chat_template import ChatTemplate
from distillspec.recipe.data import DataConfig
from tests.corpus.conftest import TEMPLATE, TURN_END

END = 0
FUNCTION = 'def f{0}(x):\n    """Adds {0}."""\n    y = x + {0}\n    return y\n\n'


def rows_file(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "jsonl", "path": str(path)}


def data(source: dict[str, Any], **values: Any) -> DataConfig:
    return DataConfig.model_validate({"source": source, "held_out_percent": 20.0, **values})


def numbered(count: int, name: str = "p") -> list[dict[str, Any]]:
    return [{"prompt": f"{name}{i}?", "response": f"r{i}"} for i in range(count)]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package of 40 files with two functions each, importable here."""
    root = tmp_path / "tiny_corpus"
    root.mkdir()
    (root / "__init__.py").write_text("")
    for i in range(40):
        (root / f"m{i}.py").write_text(FUNCTION.format(i) + FUNCTION.format(i + 1000))
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("tiny_corpus", None)
    return {"kind": "python-source", "packages": ["tiny_corpus"]}


def test_prompts_of_files_are_split_by_entire_files(
    package: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    sets = load_prompts(data(package), tokenizer, seed=0)
    files = [{p.key.partition(":")[0] for p in side} for side in (sets.training, sets.held_out)]
    assert all(is_held_out(key, 20.0) for key in files[1])
    assert not any(is_held_out(key, 20.0) for key in files[0])
    assert len(files[0] | files[1]) == 40
    assert {p.kind for p in sets.held_out} == {"function-head", "mid-body"}
    assert all(p.category == p.kind for p in sets.held_out)
    assert sets.template_hash is None


def test_prompts_carry_the_document_that_they_come_from(
    package: dict[str, Any], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    cut = load_prompts(data(package), tokenizer, seed=0).held_out
    assert {p.document for p in cut} == {p.key.partition(":")[0] for p in cut}
    files = len({p.document for p in cut})
    assert files < len(cut)  # two prompts of a file,
    assert len({p.document for p in cut[:files]}) == files  # but none before one of each
    rows = [{**row, "talk": i // 3} for i, row in enumerate(numbered(60))]
    alone = rows_file(tmp_path / "rows.jsonl", rows)
    assert all(p.document == p.key for p in load_prompts(data(alone), tokenizer, seed=0).training)
    sets = load_prompts(data({**alone, "document": "talk"}), tokenizer, seed=0)
    training, held_out = ({p.document for p in side} for side in (sets.training, sets.held_out))
    assert training | held_out == {f"talk={i}" for i in range(20)}
    assert not training & held_out
    assert len(sets.held_out) == 3 * len(held_out)


def test_a_row_without_its_document_is_an_error_that_names_the_line(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = rows_file(tmp_path / "rows.jsonl", [{"prompt": "a", "talk": 1}, {"prompt": "b"}])
    with pytest.raises(DistillSpecError, match="'talk' is null") as caught:
        load_prompts(data({**source, "document": "talk"}), tokenizer, seed=0)
    assert caught.value.where.endswith("rows.jsonl, line 2")


def test_a_file_prompt_loses_its_beginning_and_its_response_is_cut(
    package: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    sets = load_prompts(
        data(package, max_prompt_tokens=20, max_response_tokens=9), tokenizer, seed=0
    )
    for prompt in sets.training:
        assert prompt.response is not None
        assert len(prompt.tokens) == 20
        assert prompt.text.endswith(tokenizer.decode(prompt.tokens))
        assert prompt.text.startswith("def f")
        assert len(prompt.response) == 9
        assert END not in prompt.response


def test_a_response_that_reaches_the_end_of_the_file_gets_end_of_text(
    package: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    for prompt in load_prompts(data(package), tokenizer, seed=0).training:
        assert prompt.response is not None
        assert prompt.response.index(END) == len(prompt.response) - 1
        assert tokenizer.decode([*prompt.tokens, *prompt.response[:-1]]).count("def f") == 2


def test_prompt_and_response_are_tokenised_separately_and_responses_end_with_end_of_text(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    sets = load_prompts(data(rows_file(tmp_path / "a.jsonl", numbered(30))), tokenizer, seed=0)
    for prompt in sets.training:
        number = prompt.text[1:-1]
        assert list(prompt.tokens) == tokenizer(prompt.text)["input_ids"]
        assert prompt.response == (*tokenizer(f"r{number}")["input_ids"], END)
        assert prompt.kind == "plain"


def test_chats_are_rendered_with_the_targets_template_whose_hash_is_kept(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    chats = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "!"}]}
        for i in range(30)
    ]
    sets = load_prompts(data(rows_file(tmp_path / "a.jsonl", chats)), tokenizer, seed=0)
    assert sets.template_hash == ChatTemplate(tokenizer).hash()
    prompt = sets.training[0]
    assert tokenizer.decode(prompt.tokens) == prompt.text
    assert prompt.text.endswith("?\n<assistant>")
    assert prompt.messages is not None
    assert ChatTemplate(tokenizer).prompt(prompt.messages) == prompt.text
    # What the template writes, which puts no end-of-text there.
    assert prompt.response == tuple(tokenizer("!\n")["input_ids"])


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "hub"])
def test_chats_of_every_source_are_rendered_with_the_template_variables(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    held_out: bool,
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = TEMPLATE + "{% if silent %}<silent>{% endif %}"
    chats = [{"messages": [{"role": "user", "content": f"{i}?"}]} for i in range(30)]
    source = rows_file(tmp_path / "a.jsonl", chats)
    second = rows_file(tmp_path / "b.jsonl", [{"prompt": f"{i}!"} for i in range(30)])
    for rows in (source, second):
        rows["as_chat"] = "if-template"
        if kind == "hub":
            path = rows.pop("path")
            rows |= {"kind": "hub", "dataset": "json", "files": [path], "split": "train"}
    plan = data(source, held_out=second if held_out else None)
    sets = load_prompts(plan, changed, seed=0, variables={"silent": True})
    assert all(p.text.endswith("<assistant><silent>") for p in [*sets.training, *sets.held_out])
    assert sets.template_hash == ChatTemplate(changed, {"silent": True}).hash()
    assert sets.template_hash != ChatTemplate(changed).hash()


def test_a_chats_own_response_ends_as_the_template_ends_a_turn_and_a_texts_does_not(
    tmp_path: Path, turning: PreTrainedTokenizerFast
) -> None:
    chat = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    rows = [{"messages": chat}] * 3 + numbered(20)
    source = data(rows_file(tmp_path / "a.jsonl", rows)).source
    usable = load_source_prompts(source, data(source.model_dump()), turning, seed=0)
    ends = {(p.kind, p.response[-1]) for p in usable if p.response is not None}
    assert ends == {("chat", turning.convert_tokens_to_ids(TURN_END)), ("plain", END)}


def test_a_chats_response_is_cut_at_the_first_token_that_ends_a_text(
    tmp_path: Path, turning: PreTrainedTokenizerFast
) -> None:
    """A channel that is closed inside of an answer ends no text."""
    made = copy.deepcopy(turning)
    made.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}"
        "{{ m.reasoning_content }}<|end|><final>{% endif %}{{ m.content }}"
        "{{ eos_token if m.role == 'assistant' else '' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    answer = {"role": "assistant", "content": "4", "reasoning_content": "sum"}
    chats = [{"messages": [{"role": "user", "content": f"{i}?"}, answer]} for i in range(30)]
    sets = load_prompts(data(rows_file(tmp_path / "a.jsonl", chats)), made, seed=0)
    responses = {p.response for p in sets.training}
    assert responses == {tuple(made(f"sum{TURN_END}<final>4{made.eos_token}")["input_ids"])}


def test_the_sides_of_chats_do_not_depend_on_the_day(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}" + TEMPLATE
    chats = [{"messages": [{"role": "user", "content": f"{i}?"}]} for i in range(60)]
    chats += [{"prompt": f"{i}!"} for i in range(60)]
    source = rows_file(tmp_path / "a.jsonl", chats) | {"as_chat": "if-template"}
    days = [
        load_prompts(data(source, template_date=day), dated, seed=0)
        for day in ("2026-12-01", "2026-12-02")
    ]
    for first, second in zip(days[0][:2], days[1][:2], strict=True):
        assert [p.key for p in first] == [p.key for p in second]
        assert [p.text.replace("01 Dec", "02 Dec") for p in first] == [p.text for p in second]
    assert days[0].training[0].text.startswith("01 Dec 2026")
    assert load_prompts(data(source), dated, seed=0).training[0].text.startswith("01 Jan 2026")


def test_suites_render_chats_with_the_recipes_variables_and_date(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ date_string }}" + TEMPLATE + "{% if silent %}<silent>{% endif %}"
    chats = [{"messages": [{"role": "user", "content": f"{i}?"}]} for i in range(3)]
    plan = data(
        rows_file(tmp_path / "a.jsonl", chats),
        template_variables={"silent": True},
        template_date="2026-12-01",
    )
    for prompt in load_source_prompts(plan.source, plan, changed, seed=0):
        assert prompt.text.startswith("01 Dec 2026")
        assert prompt.text.endswith("<silent>")
    with pytest.raises(ValueError, match="may not hold 'add_generation_prompt'"):
        data(plan.source.model_dump(), template_variables={"add_generation_prompt": False})


def test_chats_that_cannot_be_split_are_left_out_with_a_note(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    made = copy.deepcopy(tokenizer)
    made.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    chats = []
    for i in range(40):
        answer = "4" if i % 4 == 0 else "<think>sum</think>4"
        ask = {"role": "user", "content": f"{i}?"}
        chats.append({"messages": [ask, {"role": "assistant", "content": answer}]})
    sets = load_prompts(data(rows_file(tmp_path / "a.jsonl", chats)), made, seed=0)
    assert len(sets.training) + len(sets.held_out) == 30
    assert sets.notes[0].startswith("10 chats left out: ")
    assert all(made.decode(p.response) == "sum</think>4\n" for p in sets.training)


def test_the_order_depends_on_seed_and_keys_and_any_first_prompts_are_those_of_more(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = rows_file(tmp_path / "a.jsonl", numbered(60))
    whole = load_prompts(data(source), tokenizer, seed=0)
    assert (
        load_prompts(data(source, max_prompts=7), tokenizer, seed=0).training == whole.training[:7]
    )
    assert load_prompts(data(source), tokenizer, seed=1).training != whole.training
    source = rows_file(tmp_path / "a.jsonl", numbered(60)[::-1])
    assert load_prompts(data(source), tokenizer, seed=0) == whole


def test_too_long_rows_are_left_out_and_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [*numbered(40), {"prompt": "long " * 30, "response": "r"}]
    source = rows_file(tmp_path / "a.jsonl", rows)
    second = rows_file(tmp_path / "b.jsonl", numbered(5, "q"))
    sets = load_prompts(data(source, held_out=second, max_prompt_tokens=20), tokenizer, seed=0)
    assert len(sets.training) == 40
    assert sets.notes == [
        "1 of 41 training prompts are longer than data.max_prompt_tokens=20 tokens: left out"
    ]


def test_only_rows_longer_than_the_limit_are_an_error_with_the_shortest_length(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = rows_file(tmp_path / "a.jsonl", [{"prompt": f"{i:02d}" * 20} for i in range(40)])
    with pytest.raises(DistillSpecError, match="the shortest has 40") as caught:
        load_prompts(data(source, max_prompt_tokens=39), tokenizer, seed=0)
    assert caught.value.where == "data.max_prompt_tokens=39"


def test_files_without_functions_are_an_error(
    tmp_path: Path, package: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    for path in (tmp_path / "tiny_corpus").glob("m*.py"):
        path.write_text("nothing = None\n")
    with pytest.raises(DistillSpecError, match="gives no training prompt"):
        load_prompts(data(package), tokenizer, seed=0)


def test_hub_data_sets_are_prompts_too(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    import datasets

    columns = {"prompt": [f"p{i}" for i in range(40)], "response": ["r"] * 40}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "saved"))
    source = {"kind": "hub", "dataset": str(tmp_path / "saved")}
    sets = load_prompts(data(source), tokenizer, seed=0)
    assert len(sets.training) + len(sets.held_out) == 40


def test_a_suite_takes_all_rows_of_a_file_and_of_code_what_training_never_sees(
    tmp_path: Path, package: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    plan = data(rows_file(tmp_path / "a.jsonl", numbered(30)))
    assert len(load_source_prompts(plan.source, plan, tokenizer, seed=0)) == 30
    source = data(package).source
    prompts = load_source_prompts(source, plan, tokenizer, seed=0)
    files = {p.key.partition(":")[0] for p in prompts}
    assert files
    assert all(is_held_out(file, plan.held_out_percent) for file in files)
    assert load_source_prompts(source, plan, tokenizer, seed=0, most=5) == prompts[:5]
