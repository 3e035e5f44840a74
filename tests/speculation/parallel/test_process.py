from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.speculation.parallel.process import DraftProcess


class Clerk:
    """Does what it is told, which may be to die."""

    capacity = 9

    def receive(self, message: tuple[str, Any]) -> Any:
        order, value = message
        if order == "exit":
            os._exit(value)
        if order == "sleep":
            time.sleep(value)
        if order == "fail":
            raise ValueError(value)
        return value

    def work(self) -> bool:
        return False


@pytest.fixture(scope="module")
def clerk() -> Any:
    with DraftProcess(Clerk, name="clerk") as process:
        yield process


def test_it_is_another_process_that_answers(clerk: DraftProcess) -> None:
    assert clerk.pid != os.getpid()
    assert clerk.ask(("say", 5)) == 5
    assert clerk.capacity == 9
    clerk.check()


def test_its_work_is_counted(clerk: DraftProcess) -> None:
    before = clerk.busy_seconds
    clerk.ask(("sleep", 0.1))
    clerk.ask(("say", 1))  # the time is added after the answer is sent
    assert clerk.busy_seconds - before == pytest.approx(0.1, abs=0.05)


def test_every_call_after_its_end_tells_the_same_reason() -> None:
    with DraftProcess(Clerk, name="clerk") as process:
        with pytest.raises(DistillSpecError, match="ended with exit code 3") as first:
            process.ask(("exit", 3))
        for call in (process.check, lambda: process.send(("say", 1))):
            with pytest.raises(DistillSpecError) as again:
                call()
            assert again.value is first.value


def test_a_failure_is_told_in_its_own_words_and_ends_it() -> None:
    with DraftProcess(Clerk, name="clerk") as process:
        with pytest.raises(DistillSpecError, match="ValueError: three legs"):
            process.ask(("fail", "three legs"))
        assert not process._process.is_alive()


def test_a_hung_process_is_ended() -> None:
    with DraftProcess(Clerk, name="clerk", hang_seconds=0.3) as process:
        started = time.monotonic()
        with pytest.raises(DistillSpecError, match=r"no sign of life for 0\.3 s"):
            process.ask(("sleep", 60.0))
        assert time.monotonic() - started < 8.0


def test_closing_twice_is_fine() -> None:
    process = DraftProcess(Clerk, name="clerk")
    process.close()
    process.close()


def test_a_script_without_a_guard_is_told_about_it(tmp_path: Path) -> None:
    """The new process reads the script, and would start a process of its own."""
    script = tmp_path / "script.py"
    script.write_text(
        "from distillspec.speculation.parallel.process import DraftProcess\n"
        "DraftProcess(int, name='clerk')\n"
    )
    found = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    last = found.stderr.strip().splitlines()[-3:]
    assert "ended with exit code 1" in last[0]
    assert "if __name__ == '__main__'" in last[2]
