"""Tensors and plain values in a file: written wholly or not at all; reading it runs no code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from distillspec.atomic import replacing_file
from distillspec.errors import DistillSpecError


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoint files, written by `write_state` and read by `read_state`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        write_state(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_state(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class _Sink(io.RawIOBase):
    """A file that remembers why it could not be written; torch.save reports something else."""

    def __init__(self, handle: IO[bytes]) -> None:
        super().__init__()
        self._handle = handle
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written: int = self._handle.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise
        return written

    def flush(self) -> None:
        if self.failure is None:
            self._handle.flush()


def write_state(state: dict[str, Any], path: Path) -> None:
    """torch.save, wholly or not at all. Errors: DistillSpecError when the disk is full."""
    with replacing_file(path) as temporary, temporary.open("wb") as handle:
        sink = _Sink(handle)
        try:
            torch.save(state, cast(IO[bytes], sink))
        except (OSError, RuntimeError):
            if sink.failure is not None:
                raise sink.failure from None
            raise


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU. Errors: DistillSpecError when it is no checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DistillSpecError(
            "there is no such checkpoint", where=str(path), mend="start a new run"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DistillSpecError(
            f"not a checkpoint that can be read: {str(error).splitlines()[0]}",
            where=str(path),
            mend="delete it and start the run again, or restore it from a copy",
        ) from error
    return state
