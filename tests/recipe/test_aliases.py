from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe import aliases
from distillspec.recipe.loading import (
    dump_yaml,
    load_comparison,
    load_recipe,
    load_suite,
    method_of,
    suite_of,
)
from distillspec.recipe.schema import Recipe

RECIPE = """\
pair: {{target: t, draft: d{pair}}}
data: {{source: {{kind: jsonl, path: d.jsonl}}}}
distill: {{source: {{fixed: 1.0}}{distill}}}
"""
SERVED = """\
pair: {{draft: d, endpoint: {{url: "http://localhost:1/v1", model: m, {share}}}}}
data: {{source: {{kind: jsonl, path: d.jsonl}}}}
"""
PRETRAIN = """\
kind: pretrain
output: o
corpus: {{kind: jsonl, path: d.jsonl}}
tokenizer: {{{size}: 300}}
model: {{hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2}}
"""
SUITE = """\
methods: [{{name: standard}}, {{name: safe, stop: {{kind: svip}}, {key}: {{baseline: standard@2}}}}]
"""
CASES = {
    "distill.signal": (
        RECIPE.format(pair="", distill=", signal: {kind: cached, k: 9}"),
        RECIPE.format(pair="", distill=", target_logits: {kind: cached, k: 9}"),
    ),
    "pair.tokenizers: bridged": (
        RECIPE.format(pair=", tokenizers: bridged", distill=""),
        RECIPE.format(pair=", tokenizers: cross-tokenizer", distill=""),
    ),
    "pair.endpoint.most_unanswered": (
        SERVED.format(share="most_unanswered: 0.5"),
        SERVED.format(share="max_unanswered: 0.5"),
    ),
    "tokenizer.train_vocabulary": (
        PRETRAIN.format(size="train_vocabulary"),
        PRETRAIN.format(size="vocab_size"),
    ),
    "methods[1].valve": (SUITE.format(key="valve"), SUITE.format(key="fallback")),
}


@pytest.fixture(autouse=True)
def unnoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "_noted", set())


def written(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(path: Path) -> Any:
    is_suite = "\nmethods:" in f"\n{path.read_text(encoding='utf-8')}"
    return load_suite(path) if is_suite else load_recipe(path)


@pytest.mark.parametrize("old", CASES)
def test_an_old_key_loads_like_the_new_one_and_is_noted_once(
    old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = CASES[old]
    expected = load(written(tmp_path, after))
    assert capsys.readouterr().err == ""
    path = written(tmp_path, before)
    assert load(path) == expected
    note = capsys.readouterr().err
    assert note.startswith("note: ") and old in note and note.count("\n") == 1
    load(path)
    assert capsys.readouterr().err == ""
    again = written(tmp_path, dump_yaml(expected))
    assert load(again) == expected
    assert again.read_text(encoding="utf-8").startswith("schema_version: 2\n")


def test_a_recipe_that_a_run_has_stored_gives_no_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its user cannot change the file."""
    for old in ("distill.signal", "pair.tokenizers: bridged"):
        before, after = CASES[old]
        stored = load_recipe(written(tmp_path, before), is_stored=True)
        assert stored == load_recipe(written(tmp_path, after))
    assert capsys.readouterr().err == ""


def test_every_renamed_key_and_value_has_a_case() -> None:
    keys = {".".join(renamed.section).replace(".*", "[1]") for renamed in aliases.KEYS}
    assert len(CASES) == len(aliases.KEYS) + sum(map(len, aliases.VALUES.values()))
    assert all(any(case.startswith(key) for case in CASES) for key in keys)


@pytest.mark.parametrize("old", [old for old in CASES if "bridged" not in old])
def test_the_old_and_the_new_key_together_are_refused(old: str, tmp_path: Path) -> None:
    before, _ = CASES[old]
    (renamed,) = (one for one in aliases.KEYS if old.endswith(f".{one.old}"))
    start = before.index(f"{renamed.old}: ")
    end = before.index("}", start) + ("{" in before[start : before.index("}", start)])
    pair = before[start:end]
    path = written(
        tmp_path, before.replace(pair, f"{pair}, {pair.replace(renamed.old, renamed.new)}")
    )
    with pytest.raises(DistillSpecError, match="are both given") as caught:
        load(path)
    assert f".{renamed.old}" in caught.value.where and f".{renamed.new}" in caught.value.where
    assert caught.value.fix == f"remove {old}"


@pytest.mark.parametrize("in_file", ["signal", "target_logits"])
@pytest.mark.parametrize(
    "override",
    [
        "distill.signal.k=7",
        "distill.target_logits.k=7",
        "distill.signal={kind: cached, k: 7}",
        "distill={source: {fixed: 1.0}, signal: {kind: cached, k: 7}}",
    ],
)
def test_an_override_works_with_both_names(in_file: str, override: str, tmp_path: Path) -> None:
    text = RECIPE.format(pair="", distill=f", {in_file}: {{kind: cached, k: 9}}")
    recipe = load_recipe(written(tmp_path, text), [override])
    assert isinstance(recipe, Recipe) and recipe.distill.cached_logits is not None
    assert recipe.distill.cached_logits.k == 7


def test_a_fault_in_an_old_override_quotes_what_was_typed(tmp_path: Path) -> None:
    path = written(tmp_path, RECIPE.format(pair="", distill=""))
    with pytest.raises(DistillSpecError) as caught:
        load_recipe(path, ["distill.signal={kind: cached, k: 0}"])
    assert "distill.signal={kind: cached, k: 0}" in caught.value.where


def test_a_comparison_may_change_old_keys(tmp_path: Path) -> None:
    text = """\
kind: comparison
recipe: r.yaml
minutes: 1
changes: {pair.tokenizers: bridged}
variants: {cached: {distill.signal: {kind: cached}, distill.signal.k: 9}}
"""
    comparison = load_comparison(written(tmp_path, text))
    assert comparison.changes == {"pair.tokenizers": "cross-tokenizer"}
    assert list(comparison.variants["cached"]) == [
        "distill.target_logits",
        "distill.target_logits.k",
    ]
    both = text.replace("distill.signal.k: 9", "distill.target_logits: {kind: online}")
    with pytest.raises(DistillSpecError, match="are both given"):
        load_comparison(written(tmp_path, both))


def test_a_method_of_a_program_may_have_the_old_key() -> None:
    safe = {"name": "safe", "stop": {"kind": "svip"}, "valve": {"baseline": "standard@2"}}
    assert method_of(safe).fallback is not None
    assert suite_of({"methods": [{"name": "standard"}, safe]}).methods[1].fallback is not None
    assert "valve" in safe


@pytest.mark.parametrize("value", [None, 3, "text", [1], {"signal": 4}, {"signal": None}])
def test_a_section_that_is_anything_is_left_to_the_schema(value: Any, tmp_path: Path) -> None:
    data = {"pair": value, "distill": value, "tokenizer": value, "methods": value}
    aliases.renew(data, "file")
    assert "signal" not in (data["distill"] if isinstance(data["distill"], dict) else {})


def test_files_have_a_version_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    text = RECIPE.format(pair="", distill="")
    assert load_recipe(written(tmp_path, "schema_version: 2\n" + text)) == load_recipe(
        written(tmp_path, text)
    )
    with pytest.raises(DistillSpecError, match="schema_version 3") as caught:
        load_recipe(written(tmp_path, "schema_version: 3\n" + text))
    assert caught.value.where.endswith(": schema_version")
    with pytest.raises(DistillSpecError, match="schema_version"):
        load_recipe(written(tmp_path, "schema_version: 1\n" + text))
