"""Context managers for calls into transformers: one error for all failures, no output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging as transformers_logging

from distillspec.errors import DistillSpecError


@contextmanager
def explained(path: str, what: str, view: Path | None = None) -> Iterator[None]:
    """Turn every exception into a DistillSpecError.

    Args:
        path: The path that the user knows.
        what: Name of the model in errors.
        view: The folder that transformers read in place of `path`; replaced in messages.
    """
    try:
        yield
    except DistillSpecError:
        raise
    except ImportError as error:
        raise DistillSpecError(
            f"the {what} needs a package that is not installed: {error.name or error}",
            where=path,
            fix="install that package into this environment",
        ) from error
    except Exception as error:  # of any class: the body is one call into transformers
        reason = str(error).strip().splitlines() or [type(error).__name__]
        reason[0] = reason[0] if view is None else reason[0].replace(str(view), path)
        raise DistillSpecError(
            f"the {what} cannot be loaded: {reason[0]}",
            where=path,
            fix="is it a causal or encoder-decoder language model that this version of "
            "transformers knows? If it brings its own code and you trust it, set "
            "pair.trust_remote_code: true",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers: our own checks report odd weights."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
