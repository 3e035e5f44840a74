from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distillspec.runtime.interrupts import LAUNCHER, StopRequest, Terminated, terminable

_WORKER = """
import sys, time
from distillspec.runtime.interrupts import end_with_launcher, terminable
end_with_launcher()
try:
    with terminable():
        print("up", flush=True)
        time.sleep(60)
except KeyboardInterrupt as interrupt:
    print(type(interrupt).__name__, flush=True)
"""
_LAUNCHER = f"""
import os, subprocess, sys, time
os.environ["{LAUNCHER}"] = str(os.getpid())
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""


def test_sigterm_is_an_interrupt_within_and_what_it_was_after() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_an_interrupt_within_a_finaliser_is_not_lost(
    number: signal.Signals, kind: type[KeyboardInterrupt], capfd: pytest.CaptureFixture[str]
) -> None:
    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    before, handler = sys.unraisablehook, signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(kind) as raised, terminable():
            Finalised()  # Python prints what is raised in here, and goes on
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert raised.type is kind
    assert sys.unraisablehook is before
    assert "Traceback" not in capfd.readouterr().err


def test_other_faults_of_finalisers_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finalised:
        def __del__(self) -> None:
            raise ValueError

    seen: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: seen.append(ignored.exc_type))
    with terminable():
        Finalised()
    assert seen == [ValueError]


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_request_waits_for_the_step_and_says_so(
    number: signal.Signals, kind: type[KeyboardInterrupt], capfd: pytest.CaptureFixture[str]
) -> None:
    request = StopRequest()
    with request.watching():
        with pytest.raises(kind):  # before the first step there is nothing to wait for
            os.kill(os.getpid(), number)
        assert not request.is_made
        request.wait_for_steps()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # at once: a launcher's repetition
        assert request.is_made
    assert type(request.interrupt()) is kind
    assert capfd.readouterr().err.count(f"{number.name}: training stops after this step") == 1


def test_a_second_request_later_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    request = StopRequest(says=False)
    request.wait_for_steps()
    with request.watching():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # another kind: the launcher's
        later = time.monotonic() + 2.0
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_worker_ends_when_its_launcher_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LAUNCHER, _WORKER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "up\n"
        launcher.kill()
        assert launcher.stdout.read() == "Terminated\n"  # until the worker has closed it
