"""`torchrun` that passes a worker's exit code on, and prints its error once.

torchrun itself answers a failing worker with a traceback of its own and exit code 1, which would
bury a user's error and hide the code 2 of a stated floor.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from distillspec.errors import DistillSpecError
from distillspec.runtime import atomic
from distillspec.runtime.interrupts import LAUNCHER
from distillspec.text.foreign import say

ERROR_FOLDER = "DISTILLSPEC_ERRORS"  # where the processes of one run agree on who reports a failure


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun with `argv`; returns the exit code of the worker that failed first, or 0."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with atomic.scratch_folder("errors") as folder:
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
