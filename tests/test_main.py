"""What is said of errors is tested with `commands.dispatch`; here, that a signal ends the start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_INTERRUPTED = """
import os, signal, sys
class Late:  # the last of the imports is interrupted
    def find_spec(self, name, path=None, target=None):
        if name == "distillspec.commands.dispatch":
            os.kill(os.getpid(), signal.Signals(int(sys.argv[1])))
sys.meta_path.insert(0, Late())
from distillspec.__main__ import main
sys.exit(main(["--version"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_the_process_quietly(number: int, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import signal\nsignal.signal(2, signal.default_int_handler)\n"
         f"{_INTERRUPTED}", str(int(number))],
        capture_output=True, text=True, cwd=_ROOT, env={**os.environ, "PYTHONPATH": str(_ROOT)},
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_the_entry_runs_a_verb() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distillspec", "--version"],
        capture_output=True, text=True, cwd=_ROOT, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("distillspec ")
