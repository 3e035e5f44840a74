from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.training.state_file import AtomicCheckpointIO, read_state, write_state
from tests.training.tiny_run import no_file_larger_than


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    state = {"weights": {"a": torch.arange(3.0)}, "step": 4, "names": ("x", None), "share": 0.5}
    AtomicCheckpointIO().save_checkpoint(state, tmp_path / "x.ckpt")
    again = AtomicCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(again.pop("weights")["a"], state.pop("weights")["a"])  # type: ignore[attr-defined]
    assert again == state


@pytest.mark.parametrize("floats", [20_000, 2_000_000])
def test_a_write_that_does_not_fit_leaves_the_last_good_file(tmp_path: Path, floats: int) -> None:
    path = tmp_path / "x.ckpt"
    write_state({"step": 1}, path)
    with pytest.raises(DistillSpecError, match="writing failed"), no_file_larger_than(50_000):
        write_state({"weights": torch.zeros(floats), "more": torch.zeros(9)}, path)
    assert read_state(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_full_disk_is_called_so_and_leaves_the_last_good_file(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write_state({"step": 1}, path)
    # Linux has a device that is always full; the write goes there.
    path.with_name(f".{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(DistillSpecError, match="the disk is full"):
        write_state({"weights": torch.zeros(100_000)}, path)
    assert read_state(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_damaged_file_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write_state({"weights": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DistillSpecError, match="not a checkpoint"):
        read_state(path)
    with pytest.raises(DistillSpecError, match="no such checkpoint"):
        read_state(tmp_path / "absent.ckpt")


def test_reading_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"harmless": _Evil()}, path)
    with pytest.raises(DistillSpecError, match="not a checkpoint"):
        read_state(path)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return pickle.loads, (b"",)
