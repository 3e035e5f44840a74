"""Makes the folders that `record.py` checks in: models, data, and runs of the version of today.

`make` alone needs it; a check unpacks what it has stored.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from eval.campaigns.kill import Moment, run_verb
from eval.campaigns.kill_plan import make_template

_UNREAD = ("log.txt", "report.html", "audit.jsonl", ".lock")
_FOREIGN = (b"/tmp", b"/work", b"/root", b"/home", b"/dev/shm")
_CHAT = (
    "{% for m in messages %}<{{ mood or 'plain' }} {{ m['role'] }}>{{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %}<{{ mood or 'plain' }} assistant>{% endif %}"
)
_RUNNER = {"kind": "eager", "dtype": "float32"}
_MEASURED = {  # every section of a report but quality, whose library writes outside of the folder
    "name": "measured",
    "prompts": {
        "count": 20,
        "texts": 24,
        "order": "alternating",
        "sources": {
            "code": {"kind": "jsonl", "path": "texts.jsonl", "prompt": "text", "document": "of"},
            "odd": {"kind": "adversarial", "tokens": 9, "shapes": ["random", "repeated"]},
        },
    },
    "methods": [
        {"name": "standard", "gammas": [1, 3]},
        {"name": "block", "verify": {"kind": "block"}, "gammas": [3]},
        {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": [4]},
        {"name": "lossy-sq", "verify": {"kind": "lenient", "form": "sq", "eps": 0.5}},
        {"name": "lookup", "draft": {"kind": "lookup"}, "gammas": [3]},
        {"name": "ucb", "choose": {"kind": "ucb", "arms": ["standard", "adaedl"]}},
    ],
    "gammas": [2],
    "temperatures": [0.0, 1.0],
    "max_new_tokens": 10,
    "runner": _RUNNER,
    "audit": True,
}
_HALVES = {  # runs that are stopped on their way, by the name of their case in cases.yaml
    "half-mixed": "jsd",
    "half-replay": "replay",
    "half-rejected": "rejected",
    "half-cached": "cached",
    "half-lora": "lora",
    "half-ema": "head",
    "half-muon": "muon",
    "half-bridged": "bridged",
    "half-pruned": "pruned-width",
    "half-select": "select",
    "half-t5": "t5",
}


def make_boxes(folder: Path, suites: Path, cases: Mapping[str, Any], archive: Path) -> None:
    """Fill `folder`, and store it.

    Args:
        folder: Where the models, data and runs are made.
        suites: The shipped suites, which are stored with it.
        cases: What cases.yaml holds.
        archive: The tar.xz that is written.
    """
    sys.orig_argv = ["python", "-m", "distillspec"]  # the command that runs remember
    shutil.rmtree(folder, ignore_errors=True)
    template = make_template(folder.with_name("template"), _to_end)
    shutil.copytree(template / "plain", folder)
    _write_models(folder)
    _write_data(folder)
    _write_suites(folder / "suites", suites, cases["methods"])
    (folder / "measured.yaml").write_text(yaml.safe_dump(_MEASURED, sort_keys=False))
    measured = ("evaluate.suite=measured.yaml", "evaluate.control=true", "distill.max_steps=20")
    _to_end(["run", "tiny.yaml", "name=whole", "pair.draft=near", *measured], folder)
    for name, case in _HALVES.items():
        _stop_half(folder, ["train", "tiny.yaml", f"name={name}", *cases["traces"][case]], name)
    _stop_half(folder, ["pretrain", "pre.yaml"], "pre", rows=2)
    _to_end(["compare", "cmp.yaml"], folder)
    _tidy(folder)
    _store(folder, archive)


def _to_end(argv: Iterable[str], box: Path) -> None:
    ended = run_verb(list(argv), box)
    if ended.code:
        raise SystemExit(f"{argv} ends with {ended.code}:\n{ended.said[-3000:]}")


def _stop_half(box: Path, argv: list[str], name: str, rows: int = 5) -> None:
    """Run a command up to a write in the middle, so that there is a checkpoint to go on from."""
    for number in range(6, 200, 2):
        ended = run_verb(argv, box, Moment(9, write=number))  # type: ignore[arg-type]
        if ended.code == 0:
            raise SystemExit(f"{name} could not be stopped half-way")
        if ended.code != -9:
            raise SystemExit(f"{name} ends with {ended.code}:\n{ended.said[-3000:]}")
        for log in box.glob(f"checkpoints/runs/{name}/**/metrics.csv"):
            written = log.read_text().count("\n")
            kept = ("best.ckpt", "state.pt")
            if written > rows and any(log.with_name(one).exists() for one in kept):
                return
        shutil.rmtree(box / f"checkpoints/runs/{name}", ignore_errors=True)


# --- what runs work on ---------------------------------------------------------------------------


def _write_models(folder: Path) -> None:
    """Beside target and draft: one near the target, one of other tokens, one of chats, two T5."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.models.two_tokenizers import save_other_draft
    from tests.seq2seq import written_pair

    model = AutoModelForCausalLM.from_pretrained(folder / "target")
    tokenizer = AutoTokenizer.from_pretrained(folder / "target")
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.15 * weight.std() * torch.randn_like(weight))
    model.save_pretrained(folder / "near")
    tokenizer.save_pretrained(folder / "near")
    shutil.copytree(folder / "target", folder / "chat")
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder / "chat")
    save_other_draft(folder / "other")
    written_pair(folder / "t5")


def _write_data(folder: Path) -> None:
    words = ("def", "return", "x", "if", "for", "in", "range", "(a)", "+ 1", ":", "list", "== 0")
    texts = (
        {"text": " ".join(words[i * (k + 3) % 11 + k % 2] for k in range(9)), "of": f"d{i // 2}"}
        for i in range(60)
    )
    chats = (
        {
            "messages": [
                *([{"role": "system", "content": "Be brief."}] if i % 2 else []),
                {"role": "user", "content": f"add {i}"},
                {"role": "assistant", "content": f"x + {i}"},
            ]
        }
        for i in range(40)
    )
    for name, rows in (("texts", texts), ("chats", chats)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_suites(folder: Path, shipped: Path, extra: list[dict[str, Any]]) -> None:
    """The shipped suites, their choosers rewarded by tokens: what is decoded needs no clock."""
    folder.mkdir()
    for path in sorted(shipped.glob("*.yaml")):
        suite = yaml.safe_load(path.read_text())
        if suite.get("kind") == "comparison":
            continue
        for method in suite.get("methods", ()):
            if "choose" in method and method["choose"].get("per") != "text":
                method["choose"]["reward"] = "tokens"
        (folder / path.name).write_text(yaml.safe_dump(suite, sort_keys=False))
    plain = {"name": "standard", "gammas": [1, 2, 4]}
    suite = {"methods": [plain, *extra], "temperatures": [0.0, 1.0], "runner": _RUNNER}
    (folder / "extra.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))


# --- storing -------------------------------------------------------------------------------------


def _tidy(folder: Path) -> None:
    """Take out what no case reads, half-written files, and places of this machine."""
    for path in sorted(folder.rglob("*")):
        if path.name in _UNREAD or path.suffix == ".tmp" or ".previous." in path.name:
            path.unlink()
        elif path.name in ("tensorboard", "figures"):
            shutil.rmtree(path)
    for path in folder.rglob("identity.json"):
        path.write_text(path.read_text().replace(str(folder), "/elsewhere"))
    for path in folder.rglob("*"):
        if path.is_file() and (found := [one for one in _FOREIGN if one in path.read_bytes()]):
            raise SystemExit(f"{path} names a place of this machine: {found}")


def _store(folder: Path, archive: Path) -> None:
    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        tar.add(folder, ".", filter=plain)
