"""Records what a refactor must not change, and compares a later version with it.

    python eval/campaigns/record.py make  --scratch DIR                    # before the refactor
    python eval/campaigns/record.py check --scratch DIR                    # at each stage of it
    python eval/campaigns/record.py check --scratch DIR --only traces bad  # some parts

Recorded are: resolved recipes and suites, losses step by step, decoded tokens, a summary of stored
rows, exported folders, exit codes of bad inputs; and runs, checkpoints and stores of the version
that has made the record, which must load and go on. A fault is a case with another value, or one
that is there no more. A change that is meant is recorded by `make --only PART`; without `--only`
the stored runs are made anew as well, which is wanted after a change of their format alone.

The process imports torch and the package once, and each command line is a fork of it. Floats are
compared exactly: `about.json` says with which versions they were recorded.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import sys
import tarfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
# The same sums on every x86 machine, as far as the libraries promise that.
os.environ.update(ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_CBWR="COMPATIBLE")
os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", HF_DATASETS_OFFLINE="1", COLUMNS="120")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402

from eval.campaigns.kill_compare import differing  # noqa: E402
from eval.campaigns.kill_plan import warm  # noqa: E402
from eval.campaigns.record_cases import PARTS  # noqa: E402
from eval.campaigns.record_verbs import DATA, Values, cases  # noqa: E402

_ARCHIVE = DATA / "boxes.tar.xz"
_OF_RUNS = ("checkpoints", "data", "made")  # beside what runs begin with
_TOLD = 4  # differences of a case that are printed


def about() -> dict[str, str]:
    """What floats depend on."""
    capability = torch.backends.cpu.get_cpu_capability()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {**versions, "python": sys.version.split()[0], "instructions": capability}


class Record:
    """What is stored, and the folders that cases run in."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._unpacked = scratch / "unpacked"

    def unpack(self) -> None:
        shutil.rmtree(self._unpacked, ignore_errors=True)
        self._unpacked.mkdir(parents=True)
        with tarfile.open(_ARCHIVE) as tar:
            tar.extractall(self._unpacked, filter="data")

    def box(self, name: str, with_runs: bool) -> Path:
        """A fresh copy of the stored folder."""
        folder = self._scratch / "box" / name
        shutil.rmtree(folder, ignore_errors=True)
        left_out = None if with_runs else shutil.ignore_patterns(*_OF_RUNS)
        shutil.copytree(self._unpacked, folder, ignore=left_out)
        return folder

    def values(self, part: str) -> Values:
        """What the cases of a part come to now."""
        began, worked = time.monotonic(), sum(os.times()[:4])
        found = json.loads(json.dumps(PARTS[part](self.box)))
        took, worked = time.monotonic() - began, sum(os.times()[:4]) - worked
        print(f"{part}: {len(found)} cases, {took:.0f} s, {worked:.0f} s of CPU", flush=True)
        return dict(found)


def make(record: Record, scratch: Path, only: Sequence[str]) -> int:
    """Write the record; the number of faults, which is 0."""
    if not only:
        from eval.campaigns.record_boxes import make_boxes

        make_boxes(scratch / "boxes", ROOT / "eval/suites", cases(), _ARCHIVE)
    record.unpack()
    for part in only or PARTS:
        text = json.dumps(record.values(part), sort_keys=True, indent=0)
        (DATA / f"{part}.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))
    (DATA / "about.json").write_text(json.dumps(about(), indent=2) + "\n", encoding="utf-8")
    return 0


def check(record: Record, only: Sequence[str]) -> int:
    """Compare with the record; the number of faults."""
    stored_about = json.loads((DATA / "about.json").read_text(encoding="utf-8"))
    if stored_about != about():
        print(f"recorded with {stored_about}, this is {about()}: floats may differ")
    record.unpack()
    tried = faults = 0
    for part in only or PARTS:
        stored = json.loads(lzma.decompress((DATA / f"{part}.json.xz").read_bytes()))
        tried_here, faults_here = compare(part, stored, record.values(part))
        tried, faults = tried + tried_here, faults + faults_here
    print(f"{tried} tried, {faults} faults", flush=True)
    return faults


def compare(part: str, stored: Values, found: Values) -> tuple[int, int]:
    """Cases, and those of them that differ, which are printed."""
    names, faults = sorted({*stored, *found}), 0
    for name in names:
        lines = differing(_one(stored, name), _one(found, name))
        if lines:
            faults += 1
            print(f"FAULT {part}: {name}\n   " + "\n   ".join(lines[:_TOLD]), flush=True)
    return len(names), faults


def _one(values: Values, name: str) -> dict[str, Any]:
    return {"": values[name]} if name in values else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=("make", "check"))
    parser.add_argument("--scratch", type=Path, required=True, help="a folder to work in")
    parser.add_argument("--only", nargs="+", default=[], choices=PARTS, help="parts")
    arguments = parser.parse_args()
    scratch = arguments.scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warm()
    record, began = Record(scratch), time.monotonic()
    if arguments.do == "make":
        make(record, scratch, arguments.only)
        print(f"{time.monotonic() - began:.0f} s")
        return 0
    return int(check(record, arguments.only) > 0)


if __name__ == "__main__":
    sys.exit(main())
