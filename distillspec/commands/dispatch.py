"""The command line: dispatch to the verbs, print errors, choose the exit code.

Exit codes: 0 ok, 1 error, 2 below a stated floor, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from distillspec import __version__
from distillspec.commands import (
    check,
    compare,
    decode,
    evaluate,
    export,
    fetch,
    generate,
    pretrain,
    report,
    run,
    schema,
    train,
    tune,
)
from distillspec.errors import DistillSpecError
from distillspec.recipe import builtin
from distillspec.runtime.interrupts import Terminated, end_with_launcher, exit_code, terminable
from distillspec.runtime.os_errors import explain_any
from distillspec.runtime.torchrun import error_folder
from distillspec.text.command import command
from distillspec.text.foreign import say, visible
from distillspec.text.nearest import nearest
from distillspec.text.secret import masked, masked_values

COMMANDS = {
    "run": run,
    "check": check,
    "generate": generate,
    "train": train,
    "export": export,
    "evaluate": evaluate,
    "report": report,
    "compare": compare,
    "decode": decode,
    "tune": tune,
    "pretrain": pretrain,
    "fetch": fetch,
    "schema": schema,
}
# Verbs of 0.1 that still work and are not listed: the verb, and what differed in its defaults.
_ALIASES = {"auto": ("tune", "--output", "auto.yaml")}


class _Parser(argparse.ArgumentParser):
    """argparse leaves with 2 on a mistake; here 2 means 'below the stated floor'."""

    def error(self, message: str) -> NoReturn:
        raise DistillSpecError(
            message, where=f"command line: {self.prog}", fix=f"see: {self.prog} --help"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. Users' errors are printed, bugs show their traceback."""
    given = list(sys.argv[1:] if argv is None else argv)
    _guard_streams()
    threading.excepthook = _say_of_thread
    end_with_launcher()
    try:
        with terminable():
            return _dispatch(given)
    except DistillSpecError as error:
        _say_once(str(error), kin=str(error))
        return 1
    except KeyboardInterrupt as interrupt:
        hint = _after_an_interrupt(given)
        is_terminated = isinstance(interrupt, Terminated)
        what = "terminated" if is_terminated else "interrupted"
        if os.environ.get("RANK", "0") == "0":  # which alone knows the run folder
            _say_once(f"{what}; {str(interrupt) or hint}", kin=what)
        return exit_code(interrupt)
    except BrokenPipeError:  # the reader of our output, `head` for example, has seen enough
        _drop_output()
        return 1
    except Exception as error:
        explained = explain_any(error)
        text = traceback.format_exc() if explained is None else str(explained)
        _say_once(text, kin=f"{type(error).__name__}: {error}")
        # An error without a file name is usually from standard output. Python would write there
        # once more at exit.
        if isinstance(error, OSError) and error.filename is None:
            _drop_output()
        return 1


def _drop_output() -> None:
    """What is still to be written to standard output, which takes no more, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_of_thread(failed: threading.ExceptHookArgs) -> None:
    """A library's thread that cannot write (TensorBoard's) says it in words."""
    error = failed.exc_value
    explained = explain_any(error) if isinstance(error, Exception) else None
    if explained is None:
        threading.__excepthook__(failed)
    else:
        say(str(explained), sys.stderr)


def _after_an_interrupt(argv: Sequence[str]) -> str:
    if argv and argv[0] in ("compare", "evaluate", "generate"):
        return "the same command goes on where it stopped"
    if argv and argv[0] == "pretrain":
        return "the same command goes on where it stopped, with --resume"
    if argv and argv[0] in ("tune", "auto", "check", "decode", "export", "fetch", "report"):
        return "the same command begins again"
    return "a run that was training resumes with: " + command("run", "RUN-FOLDER")


def _dispatch(argv: list[str]) -> int:
    _check_folder()
    _check_arguments(argv)
    verb, *defaults = _ALIASES.get(argv[0], (argv[0],)) if argv else ("--help",)
    if argv and verb != argv[0]:
        say(f"note: the verb `{argv[0]}` is called `{verb}` now", sys.stderr)
    if verb in COMMANDS:
        module = COMMANDS[verb]
        summary = (module.__doc__ or "").partition(": ")[2]
        parser = _Parser(prog=f"distillspec {verb}", description=summary, allow_abbrev=False)
        module.add_arguments(parser)
        _log_to_stderr()
        # Intermixed: options may stand between overrides.
        return int(module.main(parser.parse_intermixed_args([*defaults, *argv[1:]])))
    # `--help` and `--version` exit, and any other option is an error.
    if verb.startswith("-"):
        _overview().parse_args(argv or ["--help"])
    guess = nearest(verb, list(COMMANDS))
    if verb in builtin.names("recipe"):
        guess = f"run {verb}"
    raise DistillSpecError(
        f"unknown verb '{verb}'",
        where="command line: distillspec",
        fix=f"did you mean '{guess}'?" if guess else f"the verbs are {', '.join(COMMANDS)}",
    )


def _check_folder() -> None:
    """Every path of a recipe is relative to the working folder."""
    try:
        os.getcwd()
    except OSError as error:
        raise DistillSpecError(
            f"the working folder cannot be used: {error.strerror}",
            where="command line: distillspec",
            fix="change to a folder that exists: it was deleted or moved",
        ) from error


def _check_arguments(argv: Sequence[str]) -> None:
    """Bytes that are no UTF-8 reach Python as halves of surrogate pairs: no file can hold them."""
    for number, argument in enumerate(argv, start=1):
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise DistillSpecError(
                f"argument {number} is not UTF-8: {argument[:60]}",
                where="command line: distillspec",
                fix="write it in UTF-8; rename a file whose name is not",
            )


class _Record(logging.LogRecord):
    """A record of any library: what it quotes may be foreign text."""

    def getMessage(self) -> str:  # noqa: N802  (logging's name)
        return masked(visible(super().getMessage()))


def _guard_streams() -> None:
    """A character that a stream cannot encode is escaped, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _guard_messages() -> None:
    """Log records and warnings of all libraries are printed without control characters."""
    logging.setLogRecordFactory(_Record)
    plain = warnings.formatwarning
    # Only once: each call would wrap the function again.
    if getattr(plain, "__name__", "") != "_visible_warning":

        def _visible_warning(*about: Any, **more: Any) -> str:
            return masked(visible(plain(*about, **more)))

        warnings.formatwarning = _visible_warning


def _log_to_stderr() -> None:
    """What the package has to say, from rank 0; the handler is set once."""
    _guard_messages()
    log = logging.getLogger("distillspec")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)


def _overview() -> argparse.ArgumentParser:
    verbs = "\n".join(
        f"  {name:<10}{(command.__doc__ or '').partition(': ')[2].splitlines()[0]}"
        for name, command in COMMANDS.items()
    )
    parser = _Parser(
        prog="distillspec",
        usage="distillspec VERB ...",
        description="Distil a draft model for speculative decoding, and measure what it gains.",
        epilog=f"verbs:\n{verbs}\n\n`distillspec VERB --help` lists the arguments of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"distillspec {__version__}")
    return parser


def _say_once(text: str, *, kin: str) -> None:
    """Print `text` to stderr; of several processes of one run, the first to fail speaks in full.

    Others stay silent when their error is the same (`kin`), else they print it in one line: it is
    mostly the consequence of the first, such as a lost connection.
    """
    folder = error_folder()
    first = folder / "first" if folder else None
    try:
        if first is not None:
            own = first.with_name(f"of-{os.getpid()}")
            own.write_text(kin, encoding="utf-8")
            try:
                os.link(own, first)  # appears complete: a file written in place could be read empty
            finally:
                own.unlink()
    except FileExistsError:
        assert first is not None
        if first.read_text(encoding="utf-8") == kin:
            return
        text = f"rank {os.environ.get('RANK', '?')} failed as well: {kin}"
    except OSError:
        pass  # no place to leave word for the others: speak
    say(masked_values(text.rstrip("\n"), sys.argv), sys.stderr)
