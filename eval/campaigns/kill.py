"""Kills every verb at random moments, and compares what the same command then comes to.

    python eval/campaigns/kill.py 200 --seed 0 --scratch /tmp/kill    # all verbs, 200 kills
    python eval/campaigns/kill.py 20 --verbs train pretrain           # some of them

Most kills are SIGKILL, some are SIGINT or SIGTERM; half of them fall into the middle of a write
(a part of a checkpoint, an fsync, a rename, a removal). Afterwards the verb runs to its end, or as
a run folder that is resumed. A fault is: other artefacts than of an uninterrupted run (clocks
apart), a file of somebody else that is gone, a temporary file that stays, a process that outlives
its parent, a traceback, another exit code. `compare` and `tune` are bounded by time, so that only
their ends and the names of their files are compared.

The process imports torch and the package once, and each trial is a fork of it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.update(
    HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)
)

import torch  # noqa: E402

from eval.campaigns.kill_compare import differing, left_over, state  # noqa: E402
from eval.campaigns.kill_plan import PLANS, RARE, Plan, make_template  # noqa: E402

_SECONDS = 300.0  # no trial takes longer
_LINGERS = 30.0  # a draft's process that is still importing torch sees no parent's end before
_MEMORY = ("notes.txt", "data/notes.txt", "checkpoints/notes.txt")  # files of somebody else


class Ended(NamedTuple):
    """How a command ended. code: minus the signal that ended it. orphans: ids that outlived it."""

    code: int
    said: str
    seconds: float
    orphans: list[int]


class Moment(NamedTuple):
    """When to send which signal: after seconds, or at the n-th write (of a checkpoint's parts)."""

    number: signal.Signals
    seconds: float | None = None
    write: int | None = None
    is_part: bool = False


def _writes(act: Callable[[bool, int], None]) -> None:
    """In a child: tell `act` of each step of writing. (of a checkpoint's parts?, its number)."""
    from distillspec.training import state_file

    counts = Counter[bool]()

    def step(is_part: bool) -> None:
        counts[is_part] += 1
        act(is_part, counts[is_part])

    def watched(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def replaced(*args: Any, **named: Any) -> Any:
            step(False)
            return real(*args, **named)

        setattr(owner, name, replaced)

    watched(os, "fsync")
    watched(Path, "replace")
    watched(shutil, "rmtree")
    real = state_file._Sink.write

    def write(self: Any, data: Any) -> int:
        step(True)
        return real(self, data)

    state_file._Sink.write = write  # type: ignore[method-assign]


def _child(argv: Sequence[str], box: Path, act: Callable[[bool, int], None] | None) -> int:
    """What a fork does: the command line in `box`, its output in box/log.txt."""
    os.setpgid(0, 0)
    os.chdir(box)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["distillspec", *argv]
    if act is not None:
        _writes(act)
    try:
        from distillspec.__main__ import main

        return main(list(argv))
    except KeyboardInterrupt:
        return 130  # before the command line was read
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 99


def run_verb(
    argv: Sequence[str],
    box: Path,
    moment: Moment | None = None,
    counted: Path | None = None,
    patience: float = _SECONDS,
) -> Ended:
    """Fork, run a command line in the folder `box`, signal at the moment, wait for the end.

    Args:
        argv: The verb and its arguments.
        box: The working folder; what the command says is kept there as log.txt.
        moment: When to send a signal.
        counted: A file that gets a letter for each step of writing.
        patience: Seconds after which it is ended.

    Returns:
        How it ended.
    """
    (box / "log.txt").unlink(missing_ok=True)  # of the command before
    began = time.monotonic()
    pid = os.fork()
    if not pid:

        def act(is_part: bool, number: int) -> None:
            if counted is not None:
                with counted.open("a") as handle:
                    handle.write("p" if is_part else "w")
            if moment is not None and (moment.write, moment.is_part) == (number, is_part):
                os.kill(os.getpid(), moment.number)

        code = 99
        try:
            code = _child(argv, box, None if moment is None and counted is None else act)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    sent = False
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        spent = time.monotonic() - began
        due = moment is not None and moment.seconds is not None and spent >= moment.seconds
        if due and not sent:
            assert moment is not None
            os.kill(pid, moment.number)
            sent = True
        if spent > patience:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    seconds = time.monotonic() - began
    orphans = _orphans(pid)
    log_text = (box / "log.txt").read_text(errors="replace") if (box / "log.txt").exists() else ""
    return Ended(os.waitstatus_to_exitcode(ended[1]), log_text, seconds, orphans)


def _orphans(group: int) -> list[int]:
    """Processes of the group that live on; they are ended."""
    until = time.monotonic() + _LINGERS
    while time.monotonic() < until:
        running = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        orphans = [pid for pid in running if _in(pid, group)]
        if not orphans:
            return []
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return orphans


def _in(pid: int, group: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z" and int(fields[2]) == group


# --- trials --------------------------------------------------------------------------------------


class Campaign:
    """Baselines of all plans, and the trials."""

    def __init__(self, scratch: Path, seed: int, plans: Sequence[Plan]) -> None:
        self._scratch, self._random = scratch, random.Random(seed)
        self._template = make_template(scratch / "template", self._to_end)
        self._plans = plans
        self._whole: dict[str, dict[str, Any]] = {}
        self._seconds: dict[str, float] = {}
        self._writes: dict[str, dict[bool, int]] = {}
        for plan in plans:
            self._baseline(plan)

    def _to_end(self, argv: Sequence[str], box: Path) -> None:
        ended = run_verb(argv, box, None, None)
        if ended.code:
            raise SystemExit(f"{argv} alone ends with {ended.code}:\n{ended.said[-3000:]}")

    def _box(self, plan: Plan) -> Path:
        box = self._scratch / "box"
        shutil.rmtree(box, ignore_errors=True)
        shutil.copytree(self._template / plan.begins_in, box, symlinks=True)
        for name in _MEMORY:
            (box / name).parent.mkdir(parents=True, exist_ok=True)
            (box / name).write_text("of somebody else")
        return box

    def _baseline(self, plan: Plan) -> None:
        box, counted = self._box(plan), self._scratch / "counted"
        counted.write_text("")
        ended = run_verb(plan.command(box, False), box, None, counted)
        if ended.code:
            raise SystemExit(f"{plan.name} alone ends with {ended.code}:\n{ended.said[-3000:]}")
        steps = Counter(counted.read_text())
        self._whole[plan.name], self._seconds[plan.name] = state(box, plan), ended.seconds
        self._writes[plan.name] = {False: steps["w"], True: steps["p"]}
        print(
            f"{plan.name}: {ended.seconds:.1f} s alone, {steps['w']} writes, {steps['p']} parts",
            flush=True,
        )

    def _moment(self, plan: Plan) -> Moment:
        draw = self._random
        number = signal.SIGKILL
        if draw.random() < 0.25:
            number = draw.choice([signal.SIGINT, signal.SIGTERM])
        is_part = draw.random() < 0.4
        steps = self._writes[plan.name][is_part]
        if draw.random() < 0.5 and steps:
            return Moment(number, write=draw.randrange(1, steps + 1), is_part=is_part)
        return Moment(number, seconds=draw.uniform(0.0, 1.02 * self._seconds[plan.name]))

    def trial(self, plan: Plan) -> tuple[int, list[str]]:
        """Kills that hit, and faults; at most three lives are cut before the last one."""
        box, hits, faults = self._box(plan), 0, list[str]()
        lives = self._random.choice([1, 1, 2, 3])
        for life in range(lives + 1):
            moment = self._moment(plan) if life < lives else None
            ended = run_verb(plan.command(box, life > 0), box, moment, None)
            faults += [f"outlives its parent: {pid}" for pid in ended.orphans]
            was_hit = ended.code != 0 and moment is not None
            hits += was_hit
            faults += self._of_end(plan, ended, moment)
            if ended.code == 0 or faults:
                break
        if not faults:
            faults = differing(self._whole[plan.name], state(box, plan)) + left_over(box)
            faults += [
                f"lost: {name}"
                for name in _MEMORY
                if not (box / name).exists() or (box / name).read_text() != "of somebody else"
            ]
        return hits, faults

    def _of_end(self, plan: Plan, ended: Ended, moment: Moment | None) -> list[str]:
        allowed = {0}
        if moment is not None:
            allowed |= {
                signal.SIGKILL: {-9},
                signal.SIGINT: {130},
                signal.SIGTERM: {143, -15} if not ended.said else {143},
            }[moment.number]
        if ended.code in allowed and "Traceback" not in ended.said:
            return []
        return [f"{moment} ends with {ended.code}: {ended.said[-700:]}"]

    def run(self, kills: int) -> int:
        """Trials until there are so many kills; the number of faulty trials."""
        done = faulty = number = 0
        tally: Counter[str] = Counter()
        often = [plan for plan in self._plans if plan.name not in RARE] or list(self._plans)
        rare = [plan for plan in self._plans if plan.name in RARE]
        while done < kills:
            plan = often[number % len(often)]
            if rare and number % 12 == 11:
                plan = rare[number // 12 % len(rare)]
            number += 1
            hits, faults = self.trial(plan)
            done += hits
            tally[plan.name] += hits
            if faults:
                faulty += 1
                kept = self._scratch / f"fault-{number}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(self._scratch / "box", kept, symlinks=True)
                print(f"FAULT {plan.name}, kept in {kept}:\n   " + "\n   ".join(faults[:6]))
            if faults or number % 10 == 0:
                print(f"{done} kills in {number} trials, {faulty} faulty", flush=True)
        print("kills:", ", ".join(f"{name} {count}" for name, count in sorted(tally.items())))
        print(f"{done} tried, {faulty} faults", flush=True)
        return faulty


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/distillspec-kill"))
    parser.add_argument("--verbs", nargs="*", choices=[plan.name for plan in PLANS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scratch = arguments.scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    plans = [chosen for chosen in PLANS if not arguments.verbs or chosen.name in arguments.verbs]
    return 1 if Campaign(scratch, arguments.seed, plans).run(arguments.kills) else 0


if __name__ == "__main__":
    sys.exit(main())
