from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.training import state_file
from distillspec.training.state_file import (
    SUMS,
    AtomicCheckpointIO,
    DamagedStateError,
    file_sums,
    files_in,
    previous_of,
    read_state,
    restoring,
    settle,
    verify,
    write_state,
    write_sums,
)
from tests.full_disk import no_file_larger_than


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
    whole = path.read_bytes()
    for damaged in (b"", b"x", whole[:200], whole[:-1], whole + b"x", bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(DamagedStateError, match="not a checkpoint"):
            read_state(path)
    with pytest.raises(DistillSpecError, match="no such checkpoint"):
        read_state(tmp_path / "absent.ckpt")


def test_reading_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"harmless": _Evil()}, path)
    with pytest.raises(DistillSpecError, match="not a checkpoint") as caught:
        read_state(path)
    assert "weights_only" not in str(caught.value)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return pickle.loads, (b"",)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path, state = tmp_path / "x.ckpt", {"weights": torch.arange(9.0), "step": 3}
    write_state(state, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedStateError):
            read_state(path)
    path.write_bytes(whole)
    assert read_state(path)["step"] == 3


def test_a_checkpoint_of_an_earlier_version_is_read_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"step": 1}, path)
    with caplog.at_level("INFO", "distillspec"):
        assert read_state(path) == {"step": 1}
    assert "has no checksum" in caplog.text


def test_torch_alone_reads_what_is_written(tmp_path: Path) -> None:
    write_state({"weights": torch.arange(3.0)}, tmp_path / "x.ckpt")
    again = torch.load(tmp_path / "x.ckpt", weights_only=True, mmap=True)
    assert again["weights"].tolist() == [0.0, 1.0, 2.0]


def test_a_state_without_a_key_is_refused(tmp_path: Path) -> None:
    write_state({"step": 1}, tmp_path / "x.ckpt")
    with pytest.raises(DamagedStateError, match="no 'weights'"):
        read_state(tmp_path / "x.ckpt", ("step", "weights"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        write_state({"step": step}, path, previous_of(path))
    settle(path)
    assert read_state(path)["step"] == 2
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 4
    path.write_bytes(damaged)
    settle(path)
    assert read_state(path)["step"] == 1
    assert "last.damaged.ckpt" in caplog.text
    path.write_bytes(damaged)
    with pytest.raises(DamagedStateError, match="checksum"):  # now there is none before it
        settle(path)


def test_a_checkpoint_between_its_two_renames_is_found(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_state({"step": 1}, previous_of(path))
    settle(path)
    assert read_state(path)["step"] == 1


def test_a_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "last.ckpt"
    (folder / "parts").mkdir(parents=True)
    for name in ("parts/a.pt", "parts/b.pt"):
        (folder / name).write_bytes(name.encode())
    write_sums(folder, file_sums(folder, files_in(folder)))
    verify(folder)
    for spoil in (
        lambda: (folder / "parts" / "a.pt").write_bytes(b"parts/a.pu"),
        lambda: (folder / "parts" / "a.pt").unlink(),
        lambda: (folder / SUMS).write_text("[]"),
        lambda: (folder / SUMS).write_text(""),
    ):
        spoil()
        with pytest.raises(DamagedStateError):
            verify(folder)


@pytest.mark.parametrize(
    "use",
    [
        lambda state: state["absent"],
        lambda state: state.keys,
        lambda state: state[0].copy_("x"),
        lambda state: state[0].copy_(torch.zeros(3, 3)),
        lambda state: int("x"),
        lambda state: 1 // 0,
    ],
)
def test_a_state_of_other_content_is_a_damaged_one(
    use: Callable[[Any], object], tmp_path: Path
) -> None:
    with pytest.raises(DamagedStateError, match="its content") as caught, restoring(tmp_path):
        use([torch.zeros(2)])
    assert caught.value.where == str(tmp_path)


def test_an_interrupt_while_writing_is_an_interrupt_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.ckpt"
    write_state({"step": 1}, path)
    before = path.read_bytes()
    sink = state_file._Sink
    plain, calls = sink.write, [0]

    def interrupted(self: Any, data: Any) -> int:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return int(plain(self, data))

    monkeypatch.setattr(sink, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_state({"step": 2, "weights": torch.zeros(5000)}, path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["best.ckpt"]


def test_an_empty_folder_in_place_of_a_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "last.ckpt"
    for _ in range(2):  # the second time there is a damaged one already
        write_state({"step": 1}, previous_of(path))
        path.unlink(missing_ok=True)
        path.mkdir()
        settle(path)
        assert read_state(path)["step"] == 1
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedStateError, match=r"a folder without position\.ckpt"):
        settle(path)
