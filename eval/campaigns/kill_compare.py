"""What two runs of a command have to have in common, and what may not stay behind."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from eval.campaigns.kill_plan import Plan


def _tensors(value: Any) -> Any:
    """Tensors as digests; clocks left out."""
    if isinstance(value, torch.Tensor):
        raw = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return f"{hashlib.sha256(raw).hexdigest()[:16]} {value.dtype} {tuple(value.shape)}"
    if isinstance(value, dict):
        return {str(k): _tensors(v) for k, v in value.items() if "seconds" not in str(k)}
    if isinstance(value, list | tuple):
        return [_tensors(entry) for entry in value]
    return repr(value)


def _content(path: Path) -> Any:
    """A file, without what clocks and places have written into it."""
    if path.suffix in (".ckpt", ".pt"):
        return _tensors(torch.load(path, map_location="cpu", weights_only=True))
    if path.suffix == ".csv":
        with path.open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        return [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    if path.suffix == ".jsonl" and path.name != "rows.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return sorted(json.dumps(_timeless(line), sort_keys=True) for line in lines)
    if path.name == "rows.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        keep = ("prompt", "temperature", "draft", "gamma", "repeat", "tokens", "fates")
        return sorted(json.dumps({k: line.get(k) for k in keep}) for line in lines)
    if path.suffix in (".safetensors", ".bin", ".arrow"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if "second" not in k and not k.endswith("_ms")}


def state(box: Path, plan: Plan) -> dict[str, Any]:
    """Names and contents of all that the verb has written.

    Left out are logs, clocks, and the checkpoint before the last, whose step depends on interrupts.
    """
    files: dict[str, Any] = {}
    folder = plan.folder(box)
    for path in sorted(
        candidate
        for candidate in box.rglob("*")
        if candidate.is_file() and not candidate.is_symlink()
    ):
        name = path.relative_to(box).as_posix()
        if folder is not None:  # a run folder's name is the time
            name = name.replace(folder.relative_to(box).as_posix(), "RUN")
        if any(
            part in name for part in ("log.txt", ".lock", "tensorboard", "seconds-", ".previous.")
        ):
            continue
        files[name] = None if plan.is_timed else _content(path)
    if plan.repeats:  # each life adds its own lines
        lines = (box / plan.repeats).read_text().splitlines()
        ids = [json.loads(line)["round"] for line in lines]
        last = len(ids) - ids[::-1].index(0) - 1
        files[plan.repeats] = [_timeless(json.loads(line)) for line in lines[last:]]
    return files


def differing(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two trees of dictionaries differ, a line for each place."""
    if isinstance(first, dict) and isinstance(second, dict):
        names = sorted({*first, *second})
        return [
            differences
            for name in names
            for differences in (
                differing(first[name], second[name], f"{path}/{name}")
                if name in first and name in second
                else [f"{path}/{name} only in the {'first' if name in first else 'other'} one"]
            )
        ]
    return [] if first == second else [f"{path}: {str(first)[:90]} != {str(second)[:90]}"]


def left_over(box: Path) -> list[str]:
    return [
        f"stays: {path.relative_to(box)}"
        for path in box.rglob(".*")
        if path.name.endswith((".tmp", ".old"))
    ]
