"""The entry: `python -m distillspec VERB ...`. What it does is in `commands.dispatch`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from distillspec.runtime.interrupts import exit_code, terminable


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    The verbs are imported in here: that takes half a second, in which a signal has to end quietly.
    """
    try:
        with terminable():
            from distillspec.commands import dispatch
    except KeyboardInterrupt as interrupt:  # nothing has begun
        return exit_code(interrupt)
    return dispatch.main(argv)


if __name__ == "__main__":
    sys.exit(main())
