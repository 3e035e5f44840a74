from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.dry_run import plan, render
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.written_files import mark_written

EMPTY = b"\x02" + b"\0" * 7 + b"{}"  # a safetensors file of no tensors
RECIPE = """\
pair: {target: models/target, draft: models/draft}
data:
  source: {kind: jsonl, path: prompts.jsonl}
evaluate: {suite: suite.yaml}
"""
PRETRAIN = """\
kind: pretrain
output: out
corpus: {kind: python-source, packages: [pytest]}
tokenizer: {take_from: models/target}
model: {hidden_size: 32, intermediate_size: 64, layers: 2, heads: 2}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with everything that RECIPE and PRETRAIN name."""
    monkeypatch.chdir(tmp_path)
    for name in ("target", "draft"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / file).write_bytes(EMPTY if file.endswith("safetensors") else b"{}")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n', encoding="utf-8")
    (tmp_path / "suite.yaml").write_text("gammas: [3]\n", encoding="utf-8")
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "p.yaml").write_text(PRETRAIN, encoding="utf-8")
    return tmp_path


def lines(file: str, *overrides: str) -> dict[str, str]:
    return {line.about: line.text for line in plan(load_recipe(file, overrides), file)}


def refused(file: str, *overrides: str) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        lines(file, *overrides)
    return caught.value


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_the_plan_tells_the_stages_in_order_and_creates_nothing(place: Path) -> None:
    before = everything_in(place)
    reported = lines("r.yaml", "distill.max_minutes=4", "export.push=me/draft")
    assert list(reported) == [
        "target", "draft", "prompts", "held out", "responses", "store", "train", "run folder",
        "evaluate", "export",
    ]  # fmt: skip
    assert reported["responses"] == (
        "100% sampled from the target once; then 50% sampled from the target once, 50% sampled "
        "from the draft's current weights (entire batches)"
    )
    until = "(until alpha is 0.65, at most {})"
    words = (
        f"forward kl {until.format('60%')}, then jsd[0.5] {until.format('30%')}, "
        "then jsd[0.5] (10%), 1000 steps or 4 minutes"
    )
    assert words in reported["train"]
    assert reported["run folder"] == "checkpoints/runs/r/<run id>"
    assert "gamma [3]" in reported["evaluate"]
    assert reported["export"].endswith("uploaded to me/draft")
    assert everything_in(place) == before


def test_the_plan_is_rendered_one_aligned_line_a_thing(place: Path) -> None:
    text = render(plan(load_recipe("r.yaml"), "r.yaml"))
    first, second, *_ = text.splitlines()
    assert first.index("local folder") == second.index("local folder")


def test_the_store_is_named_where_the_target_samples(place: Path) -> None:
    reported = lines("r.yaml", "distill.source={target: 0.5, fixed: 0.5}", "data.store=kept")
    kept = "one target response to each training prompt is kept in kept"
    assert reported["store"] == f"{kept}; data.max_prompts would bound them"
    bounded = lines("r.yaml", "distill.source={target: 1}", "data.store=kept", "data.max_prompts=9")
    assert bounded["store"] == kept
    assert reported["responses"] == "50% the data's own, 50% sampled from the target once"


def test_an_endpoint_is_named_and_what_it_cannot_give_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "b.yaml").write_text(
        "pair: {draft: models/draft, endpoint: {url: 'http://h:1/v1', model: org/big}}\n"
        "data: {source: {kind: jsonl, path: prompts.jsonl}}\n"
        "distill: {divergence: nll, source: {fixed: 1.0}}\n"
    )
    reported = lines("b.yaml")
    assert reported["target"] == "org/big behind http://h:1/v1, asked for completions, 8 at a time"
    assert reported["evaluate"].startswith("nothing")
    assert "store" in reported
    monkeypatch.delenv("THE_KEY", raising=False)
    doubtful = lines("b.yaml", "pair.endpoint.key_variable=THE_KEY")["target"]
    assert "only stored answers can be used: the environment variable THE_KEY is not" in doubtful


def test_a_cache_of_the_targets_word_is_told_with_its_size(place: Path) -> None:
    cached = (
        "distill.source={fixed: 1.0}",
        "distill.target_logits.kind=cached",
        "distill.target_logits.k=32",
    )
    assert (
        "data/signals, 132 bytes for each predicted token (164"
        in lines("r.yaml", *cached)["target logits"]
    )
    assert "target logits" not in lines("r.yaml")
    assert "note" not in lines("r.yaml", *cached)
    assert "hangs on how" in lines("r.yaml", *cached, "distill.divergence=reverse_kl")["note"]
    (place / "kept").write_text("")
    error = refused("r.yaml", *cached, "distill.target_logits.store=kept")
    assert "distill.target_logits.store" in error.where


def test_a_hub_id_would_be_fetched(place: Path) -> None:
    reported = lines("r.yaml", "pair.target=org/name", "data.source={kind: hub, dataset: org/rows}")
    assert "would be fetched from the Hub" in reported["target"]
    assert "org/rows" in reported["prompts"]


@pytest.mark.parametrize(
    "path", ["models/none/deeper", "/nowhere/model", "./target", "../target", "~/model", "a b"]
)
def test_a_path_that_is_no_hub_id_and_no_folder_is_missing(place: Path, path: str) -> None:
    error = refused("r.yaml", f"pair.draft={path}")
    assert error.what == f"no such model folder: '{path}'"
    assert error.where == "r.yaml: pair.draft"


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "holds no weights"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_an_incomplete_model_folder_says_what_it_lacks(place: Path, file: str, what: str) -> None:
    (place / "models/draft" / file).unlink()
    error = refused("r.yaml")
    assert what in error.what
    assert error.where == "r.yaml: pair.draft: models/draft"


@pytest.mark.parametrize(
    ("file", "override", "what", "where"),
    [
        ("r.yaml", "hardware.threads=4096", "4,096 threads", "r.yaml: hardware.threads"),
        ("p.yaml", "hardware.threads=4096", "4,096 threads", "p.yaml: hardware.threads"),
        ("p.yaml", "model.hidden_size=1000000", "GiB of memory", "p.yaml: model"),
        (
            "r.yaml",
            "pair.draft={kind: random, shape: "
            "{hidden_size: 1000000, intermediate_size: 8, layers: 2, heads: 2}}",
            "GiB of memory",
            "r.yaml: pair.draft.shape",
        ),
    ],
)
def test_what_this_machine_cannot_hold_is_refused(
    place: Path, file: str, override: str, what: str, where: str
) -> None:
    error = refused(file, override)
    assert what in error.what
    assert error.where == where


def test_threads_of_a_method_are_those_of_a_machine(place: Path) -> None:
    method = "{name: ahead, parallel: {kind: pearl, threads: 4096}}"
    (place / "suite.yaml").write_text(f"methods: [{method}]\n")
    assert refused("r.yaml").where == "suite.yaml: ahead: parallel.threads"


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08" + b"\0" * 7 + b"{}"])
def test_damaged_weights_are_refused(place: Path, content: bytes) -> None:
    (place / "models/draft/model.safetensors").write_bytes(content)
    error = refused("r.yaml")
    assert re.search("the weights are (damaged|truncated)", error.what)
    assert error.where.startswith("r.yaml: pair.draft: ")


def test_data_that_may_not_be_read_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)  # root may read all
    assert "cannot be read: Permission denied" in refused("r.yaml").what


def test_a_file_is_no_model_folder(place: Path) -> None:
    assert "is a file" in refused("r.yaml", "pair.target=prompts.jsonl").what


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("data.source.path=none.jsonl", "r.yaml: data.source.path"),
        ("data.held_out={kind: jsonl, path: none.jsonl}", "r.yaml: data.held_out.path"),
        ("data.source={kind: hub, dataset: ./none}", "r.yaml: data.source.dataset"),
        ("data.source={kind: python-source, packages: [no_such_package]}",
         "r.yaml: data.source.packages"),
        ("evaluate.suite=none.yaml", "none.yaml"),
    ],
)  # fmt: skip
def test_missing_data_is_named_with_its_key(place: Path, override: str, where: str) -> None:
    assert refused("r.yaml", override).where == where


def test_a_metric_that_is_missing_is_a_fault_of_the_suite(place: Path) -> None:
    (place / "suite.yaml").write_text("quality: none\n", encoding="utf-8")
    assert refused("r.yaml").where == "suite.yaml: quality"


def test_the_gammas_are_those_that_each_method_is_measured_with(place: Path) -> None:
    (place / "suite.yaml").write_text(
        "gammas: [3]\ndrafts: [distilled]\nmethods:\n"
        "  - {name: standard, gammas: [1, 2]}\n  - {name: block, verify: {kind: block}}\n"
        "  - {name: plain, draft: {kind: none}}\n"
        "  - {name: weak, draft: {kind: chain, model: undistilled}, gammas: [5]}\n"
        "  - {name: ucb, choose: {kind: ucb, arms: [standard, block]}}\n",
        encoding="utf-8",
    )
    reported = lines("r.yaml")["evaluate"]
    assert (
        "standard x gamma [1, 2], block x gamma [3], plain, weak x gamma [5], "
        "ucb over [standard@1, standard@2, block@3]; at temperature [0.0, 1.0]"
    ) in reported
    assert reported.endswith("drafts: distilled, undistilled")


def test_a_metric_of_code_is_left_out_where_the_prompts_are_none(place: Path) -> None:
    metric = place / "metric.py"
    metric.write_text("", encoding="utf-8")
    suite = f"quality: {metric}\nquality_on: [python-source]\n"
    (place / "suite.yaml").write_text(suite, encoding="utf-8")
    assert "scored by" not in lines("r.yaml")["evaluate"]
    code = "{kind: python-source, standard_library: true}"
    assert f"scored by {metric}" in lines("r.yaml", f"data.held_out={code}")["evaluate"]
    (place / "suite.yaml").write_text(f"{suite}prompts: {{source: {code}}}\n", encoding="utf-8")
    assert f"scored by {metric}" in lines("r.yaml")["evaluate"]


def test_a_control_is_told_only_where_it_is_trained(place: Path) -> None:
    assert lines("r.yaml")["evaluate"].endswith("drafts: undistilled, distilled, control")
    without = lines("r.yaml", "evaluate.control=false")["evaluate"]
    assert without.endswith("drafts: undistilled, distilled")


def test_every_source_of_a_suite_is_told(place: Path) -> None:
    (place / "suite.yaml").write_text(
        "prompts:\n  sources:\n    code: {kind: python-source, standard_library: true}\n"
        "    prose: {kind: python-topics}\n    odd: {kind: adversarial, shapes: [short]}\n"
        "    web: {kind: hub, dataset: json, files: ['https://example.org/rows.jsonl']}\n",
        encoding="utf-8",
    )
    reported = lines("r.yaml")["evaluate"]
    for text in (
        "Python code of the standard library",
        "language reference",
        "from the seed: short",
        "rows of https://example.org/rows.jsonl, read as json",
    ):
        assert text in reported


def test_prompts_of_the_suite_are_checked_too(place: Path) -> None:
    text = "prompts: {source: {kind: jsonl, path: none.jsonl}}\n"
    (place / "suite.yaml").write_text(text, encoding="utf-8")
    assert refused("r.yaml").where == "suite.yaml: prompts.source.path"


def test_a_store_that_cannot_be_a_folder_is_refused(place: Path) -> None:
    error = refused("r.yaml", "distill.source={target: 1}", "data.store=prompts.jsonl/store")
    assert "is not a folder" in error.what
    assert error.where == "r.yaml: data.store"


def test_a_run_folder_that_cannot_be_written_is_refused(place: Path) -> None:
    (place / "checkpoints").write_text("a file in the way", encoding="utf-8")
    assert "cannot write to" in refused("r.yaml").what


def test_a_link_that_leads_nowhere_is_not_writable(place: Path) -> None:
    os.symlink("gone", place / "link")
    error = refused("r.yaml", "distill.source={target: 1}", "data.store=link/x")
    assert "is not a folder" in error.what


def test_pretraining_is_told_too(place: Path) -> None:
    reported = lines("p.yaml")
    assert reported["tokenizer"] == "taken from models/target"
    assert reported["model"] == "Llama, 2 layers, hidden size 32"
    assert reported["output"] == "out"
    reported = lines("p.yaml", "tokenizer={vocab_size: 300}")
    assert reported["tokenizer"] == "a new byte-level BPE of 300 tokens"


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("tokenizer.take_from=./none", "p.yaml: tokenizer.take_from"),
        ("output=prompts.jsonl/out", "p.yaml: output"),
        ("corpus.packages=[no_such_package]", "p.yaml: corpus.packages"),
    ],
)
def test_pretraining_checks_its_paths(place: Path, override: str, where: str) -> None:
    assert refused("p.yaml", override).where == where


def test_python_source_names_its_code(place: Path) -> None:
    source: dict[str, Any] = {"kind": "python-source", "standard_library": True}
    reported = lines("r.yaml", f"data.source={source}")
    assert reported["prompts"] == "Python code of the standard library (**/*.py)"


def test_a_draft_that_is_made_has_its_line(place: Path) -> None:
    made = "pair.draft={kind: pruned, layers: %s}"
    (place / "models/target/config.json").write_text('{"num_hidden_layers": 9}')
    assert lines("r.yaml", made % "2")["draft"] == "made: 2 layers of the target (0, 8 of 0 to 8)"
    assert refused("r.yaml", made % "[0, 9]").where == "pair.draft.layers"


def test_an_output_with_foreign_files_is_refused_and_a_model_there_is_named(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "config.json").write_text("{}", encoding="utf-8")
    assert "other files: config.json" in refused("p.yaml").what
    mark_written(place / "out")
    assert (
        lines("p.yaml")["output"]
        == "out: the model that is there is replaced, its README.md is kept"
    )
    (place / "out" / "thesis.tex").write_text("", encoding="utf-8")
    assert "other files: thesis.tex" in refused("p.yaml").what


def test_a_schedule_is_shown_with_its_shares_and_each_source_once(place: Path) -> None:
    phases = "{share: 0.75, divergence: forward_kl}, {share: 0.25, divergence: tvd}"
    found = lines("r.yaml", "distill.source={target: 1.0}", f"distill.schedule=[{phases}]")
    assert found["responses"] == "100% sampled from the target once"
    assert found["train"].startswith("forward kl (75%), then tvd (25%), ")
    mixed = "{share: 0.5, source: {target: 1.0}}, {share: 0.5, source: {draft: 1.0}}"
    found = lines("r.yaml", f"distill.schedule=[{mixed}]")
    assert found["responses"].count("; then ") == 1


def test_cpp_code_is_named(place: Path) -> None:
    source = "data.source={kind: cpp-source, packages: [torch]}"
    assert lines("r.yaml", source)["prompts"] == "C++ code of torch (**/*)"
