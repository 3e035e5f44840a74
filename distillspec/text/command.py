"""The command that users type next, as they started this one."""

from __future__ import annotations

import os
import shlex

STARTED_AS = "DISTILLSPEC_STARTED_AS"  # launch.sh sets it to its own name as it was typed


def command(*words: object) -> str:
    """The command line `distillspec WORDS`, or with `./launch.sh` where that started this process.

    Args:
        words: Verb and arguments; paths are quoted where the shell needs it.
    """
    return shlex.join([os.environ.get(STARTED_AS) or "distillspec", *map(str, words)])
