from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.speculation.parallel.process import DraftProcess


class Clerk:
    """Does what its messages ask, which may be to die."""

    capacity = 9

    def receive(self, message: tuple[str, Any]) -> Any:
        order, value = message
        if order == "exit":
            os._exit(value)
        if order == "sleep":
            time.sleep(value)
        if order == "long":
            return bytes(value)
        if order == "fail":
            raise ValueError(value)
        return value

    def work(self) -> bool:
        return False


def ask(process: DraftProcess, message: tuple[str, Any]) -> Any:
    process.send(message)
    return process.answer()


@pytest.fixture(scope="module")
def clerk() -> Any:
    with DraftProcess(Clerk, name="clerk") as process:
        yield process


def test_it_is_another_process_that_answers(clerk: DraftProcess) -> None:
    assert clerk.pid != os.getpid()
    assert ask(clerk, ("say", 5)) == 5
    assert clerk.capacity == 9
    clerk.check()


def test_its_work_is_counted(clerk: DraftProcess) -> None:
    before = clerk.busy_seconds
    ask(clerk, ("sleep", 0.1))
    assert clerk.busy_seconds - before >= 0.1


def test_every_call_after_its_end_raises_the_same_error() -> None:
    with DraftProcess(Clerk, name="clerk") as process:
        with pytest.raises(DistillSpecError, match="ended with exit code 3") as first:
            ask(process, ("exit", 3))
        for call in (process.check, lambda: process.send(("say", 1))):
            with pytest.raises(DistillSpecError) as again:
                call()
            assert again.value is first.value


def test_a_failure_is_raised_with_its_message_and_ends_it() -> None:
    with DraftProcess(Clerk, name="clerk") as process:
        with pytest.raises(DistillSpecError, match="ValueError: three legs"):
            ask(process, ("fail", "three legs"))
        assert not process._process.is_alive()


def test_a_hung_process_is_ended() -> None:
    with DraftProcess(Clerk, name="clerk", hang_seconds=0.5) as process:
        os.kill(process.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(DistillSpecError, match=r"no sign of life for 0\.5 s"):
            ask(process, ("say", 1))
        assert time.monotonic() - started < 8.0
        assert not process._process.is_alive()


def test_closing_twice_is_fine() -> None:
    process = DraftProcess(Clerk, name="clerk")
    process.close()
    process.close()


def test_a_script_without_a_guard_gets_an_error_that_names_it(tmp_path: Path) -> None:
    """The new process reads the script, and would start a process of its own."""
    script = tmp_path / "script.py"
    script.write_text(
        "from distillspec.speculation.parallel.process import DraftProcess\n"
        "DraftProcess(int, name='clerk')\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    last = result.stderr.strip().splitlines()[-3:]
    assert "ended with exit code 1" in last[0]
    assert "if __name__ == '__main__'" in last[2]


_SLOW_START = """
import signal
import time
from distillspec.speculation.parallel.process import DraftProcess

def slow():
    print("making", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        DraftProcess(slow, name="clerk")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
print("importing", flush=True)
time.sleep(1)
"""


@pytest.mark.parametrize("moment", ["importing", "making"])
def test_an_interrupt_while_the_process_starts_ends_both_without_a_traceback(
    tmp_path: Path, moment: str
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(_SLOW_START)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        start_new_session=True,
    ) as started:
        assert started.stdout is not None
        while started.stdout.readline() != f"{moment}\n":
            pass
        os.killpg(started.pid, signal.SIGINT)  # as Ctrl-C does
        _, errors = started.communicate(timeout=50)  # ends once nobody of the two holds stderr
        assert (started.returncode, errors) == (130, "")


def test_an_answer_nobody_waited_for_is_no_failure(clerk: DraftProcess) -> None:
    clerk.send(("say", 1))
    time.sleep(0.2)
    clerk.check()
    assert ask(clerk, ("say", 2)) == 2


def test_long_work_is_no_hanging() -> None:
    with DraftProcess(Clerk, name="clerk", hang_seconds=0.5) as process:
        assert ask(process, ("sleep", 1.5)) == 1.5


def test_a_stopped_process_stops_nobody_who_sends_to_it() -> None:
    """Many small messages, or a long one, fill the pipe long before it counts as hung."""
    for message in (("say", 1), ("say", list(range(300_000)))):
        with DraftProcess(Clerk, name="clerk", hang_seconds=1.0) as process:
            os.kill(process.pid, signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(DistillSpecError, match="no sign of life for 1 s"):
                for _ in range(100_000):
                    process.send(message)
            assert time.monotonic() - started < 10.0


def test_a_process_that_stops_amid_its_answer_stops_nobody() -> None:
    with DraftProcess(Clerk, name="clerk", hang_seconds=1.0) as process:
        process.send(("long", 10_000_000))
        assert process._channel.poll(5.0)
        time.sleep(0.2)  # by now the pipe is full, and most of the answer is still to come
        os.kill(process.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(DistillSpecError, match="no sign of life for 1 s"):
            process.answer()
        assert time.monotonic() - started < 10.0
