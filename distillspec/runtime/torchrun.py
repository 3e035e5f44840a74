"""`torchrun`, with a worker's exit code and without torchrun's own traceback.

Plain `torchrun --nproc-per-node N -m distillspec run RECIPE` works as well: the processes train
together, the first to fail prints its error, and all end with the launcher. This module gives three
things more. `launch.sh` starts it for them:

- The exit code of the worker that failed first. torchrun ends with 1 whatever the worker's is.
- The error alone. torchrun adds a traceback and a table of some forty lines.
- An explanation of a worker that was killed, by memory for example, and the code 128 + signal.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from distillspec.errors import DistillSpecError
from distillspec.runtime.interrupts import LAUNCHER
from distillspec.runtime.temporary_files import scratch_folder
from distillspec.text.foreign import say

ERROR_FOLDER = "DISTILLSPEC_ERRORS"
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # torchrun's: ATTEMPT/RANK/error.json, in a folder of a run


def error_folder() -> Path | None:
    """Where the processes of one run agree on who reports a failure; None for a single process."""
    if folder := os.environ.get(ERROR_FOLDER):
        return Path(folder)
    file = os.environ.get(_ERROR_FILE)
    return Path(file).parents[1] if file else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun with `argv`; returns the exit code of the worker that failed first, or 0."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    # Workers print their errors themselves; torchrun's log would repeat them.
    # The level of a parent is not enough: each module sets the level of its logger.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with scratch_folder("errors") as folder:
        os.environ[ERROR_FOLDER] = str(folder)
        os.environ[LAUNCHER] = str(os.getpid())
        try:
            torchrun(list(sys.argv[1:] if argv is None else argv))
        except ChildFailedError as error:
            return _report(error.failures[error.get_first_failure()[0]].exitcode)
        except SignalException as stopped:
            return 128 + int(stopped.sigval)
    return 0


def _report(exit_code: int) -> int:
    """A worker that ended by itself has spoken; for one that was killed, we speak."""
    if exit_code >= 0:
        return exit_code
    # A negative code is the number of the signal, as in subprocess.
    name = signal.Signals(-exit_code).name
    error = DistillSpecError(
        f"a worker process was killed by {name}",
        where="this machine",
        fix="SIGKILL mostly means that memory ran out: lower distill.micro_batch_size; to resume,"
        " run the same command with the run folder in place of the recipe",
    )
    say(str(error), sys.stderr)
    return 128 - exit_code


if __name__ == "__main__":
    sys.exit(main())
