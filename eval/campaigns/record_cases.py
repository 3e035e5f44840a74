"""What `record.py` records: each part runs its cases, and gives the values that they come to."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

# All of the package that is reached other than by its command line.
from distillspec import decode
from distillspec.recipe.loading import dump_yaml, load_suite
from eval.campaigns.kill import ROOT
from eval.campaigns.record_verbs import (
    Boxes,
    Values,
    bad,
    cases,
    export,
    old,
    run_of,
    run_verb,
    summary,
    traces,
)

_PROMPTS = ("def f3(x):", "def f7(x):\n    return x + 7\ndef f8(x):\n    return")
_MEASURED = ("standard", "lookup", "weak", "exp3spec", "ucb-two-drafts", "adaedl")
_OF_CLOCKS = ("adaedl-valve", "ucbspec-windowed-valve", "ucb-texts", "card", "pearl")


# --- resolved ------------------------------------------------------------------------------------


def resolved(boxes: Boxes) -> Values:
    """Every shipped recipe, suite and comparison with its defaults; and what their schemas say."""
    box, found = boxes("resolved", False), Values()
    for path in sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("eval/suites/*.yaml")]):
        kind = yaml.safe_load(path.read_text(encoding="utf-8")).get("kind", "distill")
        name = path.relative_to(ROOT).as_posix()
        if kind == "distill" and path.parent.name == "suites":
            found[name] = _plain(yaml.safe_load(dump_yaml(load_suite(path))))
            continue
        shutil.copy(path, box / path.name)
        verb = {"distill": "run", "pretrain": "pretrain", "comparison": "compare"}[kind]
        found[name] = _dumped(box, verb, path.name)
    recipe = yaml.safe_load((box / "tiny.yaml").read_text(encoding="utf-8"))
    del recipe["distill"]["divergence"], recipe["distill"]["source"]
    (box / "bare.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for overrides in cases()["resolved"]:
        found[f"bare {' '.join(overrides)}"] = _dumped(box, "run", "bare.yaml", *overrides)
    for which in ((), ("--suite",), ("--comparison",)):
        schema = json.loads(run_verb(["schema", *which], box).said)
        found[f"schema {' '.join(which)}"] = _bare(schema, schema["$defs"])
    return found


def _dumped(box: Path, *argv: str) -> Any:
    ended = run_verb([*argv, "--dump-config"], box)
    # A renamed key is reported in a line of its own.
    lines = [line for line in ended.said.splitlines() if not line.startswith("note:")]
    return ended.code or _plain(yaml.safe_load("\n".join(lines)))


def _plain(values: Any) -> Any:
    """Without days, which JSON has none of."""
    return json.loads(json.dumps(values, default=str))


def _bare(schema: Any, parts: Mapping[str, Any]) -> Any:
    """A JSON schema without words, and without the names of classes."""
    if isinstance(schema, list):
        return [_bare(one, parts) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _bare(parts[schema["$ref"].rpartition("/")[2]], parts) if parts else "..."
    words = ("title", "description", "discriminator", "$defs", "$schema")
    reported = {k: v for k, v in schema.items() if k not in words or not isinstance(v, str | dict)}
    if "properties" in schema:  # whose names may be those words
        reported["properties"] = {k: _bare(v, parts) for k, v in schema["properties"].items()}
    return {k: v if k == "properties" else _bare(v, parts) for k, v in reported.items()}


# --- decoding ------------------------------------------------------------------------------------


def decoding(boxes: Boxes) -> Values:
    """Tokens, fates and rounds of every method, of the library's `decode` and of an evaluation.

    Left out is what clocks decide: valves, choosers per text, rounds of two processes. Compiled
    runners would take minutes.
    """
    box = boxes("decoding", True)
    found = _rows(box)
    with chdir(box):
        for name, suite, method, gamma in _methods(box):
            for temperature in (0.0, 1.0):
                at = f"{name}@{gamma} T={temperature:g}"
                asked = {"method": method, "suite": suite, "gamma": gamma}
                found[at] = _decoded("target", "near", temperature, **asked)
        for name, pair, more in _pairs():
            found[name] = _decoded(*pair, 1.0, **more)
    return found


def _methods(box: Path) -> Iterator[tuple[str, str | None, Any, int]]:
    """Name, suite, method (or its name in the suite) and gamma; the same method comes once."""
    seen = list[Any]()
    for path in sorted(box.glob("suites/*.yaml")):
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
        for method in suite.get("methods", ()):
            _follow_no_clock(method)
        path.write_text(yaml.safe_dump(suite), encoding="utf-8")
        for method in suite.get("methods", [{"name": "standard"}]):
            if method["name"] in _OF_CLOCKS:
                continue
            if "choose" in method:
                arms = [arm.partition("@")[0] for arm in method["choose"]["arms"]]
                named = [one for one in suite["methods"] if one["name"] in arms]
                if not any(one.get("draft", {}).get("model") for one in named):
                    yield f"{path.stem}/{method['name']}", str(path), method["name"], 4
                continue
            given = {k: v for k, v in method.items() if k not in ("gammas", "name")}
            if "lossy" in method["name"]:
                given["name"] = method["name"]
            if "model" in given.get("draft", {}):
                continue  # an evaluation has it, below
            for gamma in method.get("gammas") or suite.get("gammas", [4]):
                if (given, gamma) in seen:
                    continue
                seen.append((given, gamma))
                yield f"{path.stem}/{method['name']}", None, given, gamma


def _follow_no_clock(method: dict[str, Any]) -> None:
    """Take the published forms of what follows measured step times otherwise."""
    if method.get("stop", {}).get("kind") == "adaedl":
        method["stop"].setdefault("rule", "published")
    if method.get("choose", {}).get("kind") in ("ucb", "exp3"):
        method["choose"]["prior"] = 0


def _pairs() -> Iterator[tuple[str, tuple[str, str], Values]]:
    """Other pairs and settings under the standard method."""
    sequences = {"draft": {"kind": "sequences"}, "verify": {"kind": "kseq"}}
    yield "far draft", ("target", "draft"), {}
    yield "other tokens", ("target", "other"), {}
    yield "t5", ("t5/target", "t5/draft"), {}
    yield "t5 sequences", ("t5/target", "t5/draft"), {"method": sequences}
    yield "top_k", ("target", "near"), {"top_k": 5}
    yield "nucleus", ("target", "near"), {"nucleus": 0.8}
    yield "seed", ("target", "near"), {"seed": 9}


def _decoded(target: str, draft: str, temperature: float, **more: Any) -> list[Values]:
    found = list[Values]()
    settings = {"temperature": temperature, "max_new_tokens": 15, **more}
    if target == "target" and draft != "other":
        settings["tokenizer"] = _tokenizer(target)  # of both: loading it takes long
    for prompt in _PROMPTS[temperature > 0.0 :][:1]:
        try:
            tokens = list(decode(_model(target), _model(draft), prompt, **settings))
        except Exception as error:  # a fault, told as the value
            found.append({"error": type(error).__name__})
            continue
        rounds = [one.round for one in tokens if one.begins_round]
        found.append(
            {
                "text": "".join(one.text for one in tokens),
                "tokens": " ".join(str(one.token) for one in tokens),
                "fates": "".join(one.status.name[0] for one in tokens),
                "rounds": " ".join(
                    f"{one.drafted}/{one.accepted}/{one.emitted}/{one.draft_steps}{'-' * one.cut}"
                    for one in rounds
                ),
            }
        )
    return found


@functools.cache
def _model(folder: str) -> Any:
    """In float32, whatever this machine multiplies fastest."""
    kind = AutoModelForSeq2SeqLM if folder.startswith("t5") else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


@functools.cache
def _tokenizer(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _rows(box: Path) -> Values:
    """Rows of an evaluation: many cells side by side, each with a random stream of its own."""
    suite = yaml.safe_load((box / "suites/methods.yaml").read_text(encoding="utf-8"))
    methods = [one for one in suite["methods"] if one["name"] in _MEASURED]
    methods[0]["gammas"] = [2, 4]
    fresh = {
        "methods": methods,
        "drafts": ["distilled"],
        "temperatures": [1.0],
        "prompts": {"count": 5},
        "max_new_tokens": 8,
        "noise_floor": False,
        "runner": {"kind": "eager", "dtype": "float32"},
    }
    (box / "fresh.yaml").write_text(yaml.safe_dump(fresh), encoding="utf-8")
    ended = run_verb(["evaluate", run := run_of(box, "whole"), "--suite", "fresh.yaml"], box)
    if ended.code:
        return {"evaluation": {"code": ended.code, "said": ended.said[-300:]}}
    found = Values()
    for line in (box / run / "evaluation/fresh/rows.jsonl").read_text().splitlines():
        row = {k: v for k, v in json.loads(line).items() if not _is_of_clocks(k)}
        keys = ("draft", "method", "gamma", "temperature", "prompt", "repeat")
        name = "row " + " ".join(str(row.pop(key, None)) for key in keys)
        while name in found:  # the baseline comes twice
            name += "'"
        found[name] = row
    return found


def _is_of_clocks(key: str) -> bool:
    return "second" in key or key in ("run", "block")


PARTS: dict[str, Callable[[Boxes], Values]] = {
    "resolved": resolved,
    "traces": traces,
    "decoding": decoding,
    "summary": summary,
    "export": export,
    "bad": bad,
    "old": old,
}
