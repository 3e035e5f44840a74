from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from eval.campaigns import fuzz
from eval.campaigns.fuzz_targets import Target
from eval.campaigns.mutation import mutated_bytes, mutated_tree


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    kept = signal.signal(signal.SIGPROF, fuzz._ring), signal.signal(signal.SIGALRM, fuzz._ring)
    yield
    signal.signal(signal.SIGPROF, kept[0])
    signal.signal(signal.SIGALRM, kept[1])


def planted(data: bytes) -> None:
    """A reader with a fault of each kind."""
    if b"bug" in data:
        raise ZeroDivisionError
    if b"refused" in data:
        raise DistillSpecError("what", where="here", fix="so")
    if b"empty" in data:
        raise DistillSpecError("what", where="here", fix=" ")
    if b"escape" in data:
        print("\x1b[2J")
    if b"loop" in data:
        while True:
            pass
    if b"wait" in data:
        time.sleep(60)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"a bug", "ZeroDivisionError"),
        (b"empty", "EmptyPart"),
        (b"escape", "ControlCharacter"),
        (b"loop", "Hung"),
        (b"wait", "Hung"),
    ],
)
def test_each_kind_of_fault_is_found(data: bytes, kind: str) -> None:
    outcome = fuzz.attempt(Target("planted", [b""], planted, "bytes", 1.0), data, seconds=0.2)
    assert outcome.fault is not None
    assert (outcome.verdict, outcome.fault.target, outcome.fault.kind) == ("fault", "planted", kind)


def test_what_is_taken_or_clearly_refused_is_no_fault() -> None:
    target = Target("planted", [b""], planted, "bytes", 1.0)
    assert fuzz.attempt(target, b"x").verdict == "taken"
    assert fuzz.attempt(target, b"refused").verdict == "refused"


def test_a_campaign_counts_its_faults_and_writes_the_smallest_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target("planted", [b"....bug...."], planted, "bytes", 1.0)
    assert fuzz.campaign([target], 30, seed=0, scratch=tmp_path) == 1
    assert next(tmp_path.glob("*.bin")).read_bytes() == b"bug"
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_a_seed_fixes_all_mutations() -> None:
    tree = {"a": [1, {"b": "c"}], "d": None}

    def made(seed: int) -> list[object]:
        rng = random.Random(seed)
        trees = [repr(mutated_tree(tree, rng, ["x"])) for _ in range(50)]
        return [*trees, *(mutated_bytes(b"a: 1\nb: 2\n", rng) for _ in range(50))]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert tree == {"a": [1, {"b": "c"}], "d": None}
