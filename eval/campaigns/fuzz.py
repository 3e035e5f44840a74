"""Feeds mutated inputs to every reader; each must be taken, or be a clear error.

    python eval/campaigns/fuzz.py 20000 1 --scratch /tmp/fuzz           # all targets
    python eval/campaigns/fuzz.py 2000 7 --only recipe suite            # some of them

A fault is: another exception than DistillSpecError, or one without what, where and fix; more
than ten seconds of the processor's time; more memory than a few GiB; a control character on the
terminal. The smallest input of each fault is written into the scratch folder. Last line:
`N tried, M faults`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402

from distillspec.errors import DistillSpecError  # noqa: E402
from distillspec.text.foreign import visible  # noqa: E402
from eval.campaigns.fuzz_targets import Target, Targets  # noqa: E402
from eval.campaigns.kill_plan import make_template  # noqa: E402
from eval.campaigns.mutation import (  # noqa: E402
    as_json,
    as_yaml,
    mutated_bytes,
    mutated_tree,
)

_SECONDS = 10.0  # of the processor's time
_WAITING = 6.0  # times as long may pass on the clock: other programs may run
_FIRST_SECONDS = 120.0  # imports of the first input of a target
_MEMORY = 3 * 2**30  # bytes of address space beyond those of the start


class HungError(BaseException):
    """An input took too long; no handler of the package's may take it for one of theirs."""


class Signature(NamedTuple):
    """What makes faults the same."""

    target: str
    kind: str
    place: str


class Outcome(NamedTuple):
    """said: the error's text."""

    verdict: str
    fault: Signature | None = None
    said: str = ""


def _ring(*_: Any) -> None:
    raise HungError


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """What is printed meanwhile."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.redirect_stderr(page):
        yield page


def attempt(target: Target, data: bytes, seconds: float = _SECONDS) -> Outcome:
    """Feed one input."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _WAITING * seconds)
    try:
        with captured() as page:
            target.run(data)
        outcome = Outcome("taken")
    except DistillSpecError as error:
        outcome = Outcome("refused", None, str(error))
        if not (error.what.strip() and error.where.strip() and error.fix.strip()):
            outcome = Outcome("fault", Signature(target.name, "EmptyPart", "what, where, fix"))
    except HungError as error:
        outcome = Outcome("fault", Signature(target.name, "Hung", _place(error).split(":")[0]))
    except SystemExit:
        outcome = Outcome("taken")  # --help and the like
    except BaseException as error:
        where = Signature(target.name, type(error).__name__, _place(error))
        outcome = Outcome("fault", where, str(error)[:300])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    for text in (page.getvalue(), outcome.said):
        if outcome.fault is None and visible(text) != text:
            return Outcome("fault", Signature(target.name, "ControlCharacter", ""), visible(text))
    return outcome


def _place(error: BaseException) -> str:
    """The last line of the package's own that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(ROOT / "distillspec") + os.sep
    own = [frame for frame in frames if frame.filename.startswith(package)]
    last = own[-1] if own else frames[-1]
    return f"{last.filename.removeprefix(package)}:{last.lineno} {last.name}"


class Feed:
    """Mutated inputs of one target."""

    def __init__(self, target: Target) -> None:
        self.target, self._trees, self._keys = target, target.trees(), target.keys()

    def input(self, rng: random.Random) -> bytes:
        target = self.target
        if target.form == "tree":
            return str(rng.random()).encode()
        if target.odd and rng.random() < 0.03:
            return rng.choice(target.odd)
        number = rng.randrange(len(target.seeds))
        if not self._trees or rng.random() < 0.35:
            return mutated_bytes(target.seeds[number], rng)
        tree = self._trees[number]
        if target.form == "jsonl":
            lines = list(tree)
            changed = rng.randrange(len(lines))
            lines[changed] = mutated_tree(lines[changed], rng, self._keys)
            return b"\n".join(map(as_json, lines)) + b"\n"
        changed_tree = mutated_tree(tree, rng, self._keys)
        return as_yaml(changed_tree) if target.form == "yaml" else as_json(changed_tree)


def smaller(target: Target, data: bytes, fault: Signature, seconds: float = 6.0) -> bytes:
    """An input with the same fault, from which pieces were cut as long as there was time."""
    if target.form == "tree" or fault.kind == "Hung":
        return data
    end, size = time.monotonic() + seconds, max(1, len(data) // 2)
    while size >= 1 and time.monotonic() < end:
        at, is_cut = 0, False
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + size :]
            if attempt(target, shorter).fault == fault:
                data, is_cut = shorter, True
            else:
                at += size
        if not is_cut or size > len(data):
            size //= 2
    return data


def prepared(scratch: Path, only: Sequence[str]) -> list[Target]:
    """The targets, each of which has met a seed, so that imports count against nobody."""

    def run(argv: Sequence[str], folder: Path) -> None:
        from distillspec.__main__ import main

        with contextlib.chdir(folder), captured() as page:
            code = main(list(argv))
        assert code == 0, page.getvalue()[-2000:]

    work = make_template(scratch / "template", run) / "measured"
    targets = [
        fuzzed
        for fuzzed in Targets(scratch, work).all()
        if not only or any(fuzzed.name.startswith(name) for name in only)
    ]
    for target in targets:
        outcome = attempt(target, target.seeds[0], _FIRST_SECONDS)
        print(f"seed of {target.name}: {outcome.verdict} {outcome.said[:200]!r}", file=sys.stderr)
    return targets


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def campaign(targets: Sequence[Target], count: int, seed: int, scratch: Path) -> int:
    """Feed `count` inputs; how many different faults there were."""
    rng = random.Random(seed)
    feeds = [Feed(target) for target in targets]
    weights = [feed.target.weight for feed in feeds]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    faults: dict[Signature, tuple[Target, bytes, str]] = {}
    for number in range(1, count + 1):
        feed = rng.choices(feeds, weights)[0]
        data = feed.input(rng)
        try:
            outcome = attempt(feed.target, data)
        except HungError:  # the clock rang on the way out
            outcome = Outcome("taken")
        counts[feed.target.name][outcome.verdict] += 1
        fault = outcome.fault
        if fault is not None and (fault not in faults or len(data) < len(faults[fault][1])):
            if fault not in faults:
                print("FAULT", *fault, outcome.said[:160].replace("\n", " "), flush=True)
            faults[fault] = (feed.target, data, outcome.said)
        if number % 500 == 0:
            gc.collect()
            clock = time.strftime("%X")
            print(f"{clock}: {number} tried, {len(faults)} faults", file=sys.stderr, flush=True)
    for name, of_target in counts.items():
        print(f"  {name:24} " + ", ".join(f"{n} {verdict}" for verdict, n in of_target.items()))
    for fault, (target, data, message) in faults.items():
        name = hashlib.sha256(repr(fault).encode()).hexdigest()[:8]
        (scratch / f"{name}.bin").write_bytes(smaller(target, data, fault))
        (scratch / f"{name}.txt").write_text(f"{fault}\n{visible(message)}\n")
        print(f"{scratch / name}.bin: {' '.join(fault)}")
    return len(faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--scratch", type=Path, help="default: a temporary folder")
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of names of targets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scratch = arguments.scratch or Path(tempfile.mkdtemp(prefix="fuzz-"))
    scratch = scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)  # recipes name models and suites relative to it
    signal.signal(signal.SIGALRM, _ring)
    signal.signal(signal.SIGPROF, _ring)
    targets = prepared(scratch, arguments.only)
    limit_memory()
    began = time.monotonic()
    faults = campaign(targets, arguments.count, arguments.seed, scratch)
    print(f"{time.monotonic() - began:.0f} seconds")
    print(f"{arguments.count} tried, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
