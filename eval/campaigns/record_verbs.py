"""The parts of `record.py` that are told by command lines, and by the files that these write."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import html
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from distillspec.__main__ import main
from eval.campaigns.kill import run_verb as forked

DATA = Path(__file__).with_name("record")
Values = dict[str, Any]
Boxes = Callable[[str, bool], Path]
"""A fresh copy of the stored folder under a name; with its runs and stores, or without."""

run_verb = functools.partial(forked, patience=3000.0)  # the machine may have much else to do
_SHORT = ("distill.max_steps=6", "distill.probe={prompts: 2, gamma: 2, max_new_tokens: 4}")
_UNTOLD = ("environment", "created", "definitions")  # of a summary: machine, date, prose


def cases() -> Mapping[str, Any]:
    """What cases.yaml holds."""
    found: Mapping[str, Any] = yaml.safe_load((DATA / "cases.yaml").read_text(encoding="utf-8"))
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def run_of(box: Path, name: str) -> str:
    """The run folder of that name, from the box."""
    return next(box.glob(f"checkpoints/runs/{name}/[!.]*")).relative_to(box).as_posix()


def code_of(argv: Sequence[str], box: Path) -> int | str:
    if "--dry-run" in argv:  # which needs no process of its own
        code, said = _looked(argv, box)
    else:
        ended = run_verb(argv, box)
        code, said = ended.code, ended.said
    if os.environ.get("RECORD_SAID"):  # to read why each one is refused
        print(argv, code, said[-400:], flush=True)
    return "traceback" if "Traceback" in said else code


def _looked(argv: Sequence[str], box: Path) -> tuple[int, str]:
    """The exit code of a command line that only looks, and what it says."""
    page = io.StringIO()
    try:
        with contextlib.chdir(box), redirect_stdout(page), redirect_stderr(page):
            return main(list(argv)), page.getvalue()
    except SystemExit as end:
        return (end.code if isinstance(end.code, int) else 1), page.getvalue()


# --- traces --------------------------------------------------------------------------------------


def traces(boxes: Boxes) -> Values:
    """Each step's loss and its like, the digests of texts and models, and the trained draft."""
    box, found = boxes("traces", False), Values()
    for name, overrides in cases()["traces"].items():
        argv = ["train", "tiny.yaml", f"name={name}", *_SHORT, *overrides]
        found[name] = _trained(box, argv, f"checkpoints/runs/{name}")
    found["pretrain"] = _pretrained(box, ["pretrain", "pre.yaml"], "pre", "made")
    further = ["model=null", "start_from=made", "train.start_share=0.25", "name=on", "output=on"]
    found["pretrain on"] = _pretrained(box, ["pretrain", "pre.yaml", *further], "on", "on")
    return found


def _trained(box: Path, argv: Sequence[str], place: str) -> Values:
    ended = run_verb(argv, box)
    if ended.code:
        return {"code": ended.code, "said": ended.said[-300:]}
    (run,) = box.glob(f"{place}/[!.]*") if place.count("/") < 3 else [box / place]
    identity = json.loads((run / "identity.json").read_text(encoding="utf-8"))
    return {
        "code": 0,
        "steps": _steps(run / "metrics.csv"),
        "identity": identity["digests"],
        "draft": digest(run / "draft/model.safetensors"),
    }


def _pretrained(box: Path, argv: Sequence[str], name: str, output: str) -> Values:
    ended = run_verb(argv, box)
    if ended.code:
        return {"code": ended.code, "said": ended.said[-300:]}
    steps = _steps(box / "checkpoints/runs" / name / "metrics.csv")
    return {"code": 0, "steps": steps, "model": digest(box / output / "model.safetensors")}


def _steps(path: Path) -> Values:
    """A row a step, as they are written: floats that read back the same. Clocks are left out."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    kept = ({k: v for k, v in row.items() if v and "second" not in k} for row in rows)
    return {f"{number}": row for number, row in enumerate(kept)}


# --- summary, export -----------------------------------------------------------------------------


def summary(boxes: Boxes) -> Values:
    """Each part of summary.json, made of stored rows and times; and the tables of the report."""
    box = boxes("summary", True)
    place = box / (run := run_of(box, "whole")) / "evaluation/measured"
    (place / "summary.json").unlink()
    found = Values()
    for argv in (["evaluate", run, "--suite", "measured.yaml"], ["report", run]):
        ended = run_verb(argv, box)
        found[argv[0]] = ended.code
        if ended.code:
            return found | {"said": ended.said[-300:]}
    for name, value in json.loads((place / "summary.json").read_text(encoding="utf-8")).items():
        if name not in _UNTOLD:
            found[f"summary {name}"] = _keyed(value)
    page = (place / "report.html").read_text(encoding="utf-8").partition("<h2>Environment")[0]
    for number, table in enumerate(re.findall(r"<table.*?</table>", page, re.DOTALL)):
        rows = (re.sub(r"(<[^>]*>)+", " | ", row) for row in table.split("<tr"))
        found[f"table {number}"] = _keyed([html.unescape(row).strip() for row in rows])
    return found


def _keyed(value: Any) -> Any:
    """Lists of lines or records as dictionaries, so that a difference is told by its place."""
    if isinstance(value, list) and any(isinstance(one, dict | str) for one in value):
        return {f"{number}": one for number, one in enumerate(value)}
    return value


def export(boxes: Boxes) -> Values:
    """What is in the folders of drafts that are exported again, of every kind of stored run."""
    box, found = boxes("export", True), Values()
    for name in sorted(path.name for path in box.glob("checkpoints/runs/*")):
        if name in ("pre", "compare"):
            continue
        shutil.rmtree(box / (run := run_of(box, name)) / "draft", ignore_errors=True)
        ended = run_verb(["export", run], box)
        if ended.code:
            found[name] = {"code": ended.code, "said": ended.said[-300:]}
            continue
        folder = box / run / "draft"
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            found[f"{name} {path.relative_to(folder).as_posix()}"] = _exported(path)
    return found


def _exported(path: Path) -> Any:
    if path.name in ("config.json", "generation_config.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        return {k: v for k, v in values.items() if k != "transformers_version"}
    if path.name == "README.md":
        text = re.sub(r"\d{4}-\d\d-\d\d\S*", "DATE", path.read_text(encoding="utf-8"))
        return _keyed(text.splitlines())
    return digest(path)


# --- bad -----------------------------------------------------------------------------------------


def bad(boxes: Boxes) -> Values:
    """Exit codes of inputs that are refused, and of their neighbours that are taken."""
    plan = yaml.safe_load((DATA / "bad.yaml").read_text(encoding="utf-8"))
    box, found = boxes("bad", True), Values()
    (box / "plain-files").mkdir()
    (box / "plain-files/notes.txt").write_text("of somebody else")
    places = {"RUN": run_of(box, "whole"), "HALF": run_of(box, "half-mixed")}
    for base, verb in (("tiny.yaml", "run"), ("pre.yaml", "pretrain")):
        for overrides in plan[{"run": "recipe"}.get(verb, verb)]:
            argv = [verb, base, "--dry-run", *overrides]
            found[" ".join(argv)] = code_of(argv, box)
    comparison = yaml.safe_load((box / "cmp.yaml").read_text(encoding="utf-8"))
    texts = {
        "suite": [one.get("suite") or {"methods": [one]} for one in plan["suite"]],
        "comparison": [comparison | one for one in plan["comparison"]],
    }
    for kind, argv in (
        ("suite", ["evaluate", "tiny.yaml", "--dry-run", "--suite", "bad.yaml"]),
        ("comparison", ["compare", "bad.yaml", "--dry-run"]),
    ):
        for given, one in zip(plan[kind], texts[kind], strict=True):
            (box / "bad.yaml").write_text(yaml.safe_dump(one), encoding="utf-8")
            found[f"{kind} {json.dumps(given)}"] = code_of(argv, box)
    for name, text in plan["files"].items():
        (box / "bad.yaml").write_text(text, encoding="utf-8")
        found[f"file {name}"] = code_of(["run", "bad.yaml", "--dry-run"], box)
    for argv in [*plan["good"], *plan["commands"]]:
        found[" ".join(argv)] = code_of([places.get(word, word) for word in argv], box)
    for name, change, *argv in plan["damaged"]:
        box = boxes("bad", True)
        _damage(box, re.sub("^(RUN|HALF)", lambda m: places[m.group()], name), change)
        found[f"{name} {change!r} {' '.join(argv)}"] = code_of(
            [places.get(word, word) for word in argv], box
        )
    return found


def _damage(box: Path, name: str, change: str) -> None:
    """Cut a file in half, take it away, or put a text in its place."""
    for path in list(box.glob(name)) or [box / name]:
        raw = path.read_bytes()
        path.unlink()
        if change != "gone":
            path.write_bytes(raw[: len(raw) // 2] if change == "cut" else change.encode("latin-1"))


# --- old -----------------------------------------------------------------------------------------


def old(boxes: Boxes) -> Values:
    """Runs that were stopped half-way go on; stores are read, and stay as they are."""
    box, found = boxes("old", True), Values()
    before = _files(box / "data")
    for name in sorted(path.name for path in box.glob("checkpoints/runs/half-*")):
        found[name] = _trained(box, ["train", run := run_of(box, name)], run)
    found["pre"] = _pretrained(box, ["pretrain", "pre.yaml", "--resume"], "pre", "made")
    for recipe in ("tiny.yaml", "rollout.yaml", "cached.yaml"):
        found[f"generate {recipe}"] = code_of(["generate", recipe], box)
    shutil.rmtree(box / run_of(box, "whole") / "draft")
    found["train whole"] = _trained(box, ["train", run := run_of(box, "whole")], run)
    found["compare"] = code_of(["compare", "cmp.yaml"], box)
    for path in sorted(box.glob("checkpoints/runs/compare/cmp/*.md")):
        found[f"compare {path.name}"] = _keyed(path.read_text(encoding="utf-8").splitlines())
    after = _files(box / "data")
    for name in sorted({*before, *after}):
        if not name.endswith(".lock"):
            found[f"store {name}"] = [before.get(name), after.get(name)]
    return found


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
