from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.runtime.atomic import write_text
from distillspec.runtime.lock import run_lock

_HOLDER = """
import sys, time
from pathlib import Path
from distillspec.runtime.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_told_which_run_holds_the_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DistillSpecError) as caught, run_lock(tmp_path):
            pass
        assert f"process {holder.pid}" in caught.value.what
        assert caught.value.where == str(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    with run_lock(tmp_path):  # a killed run leaves no lock behind
        pass


def test_a_process_may_lock_its_folder_again(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        with run_lock(tmp_path / "."):
            pass
        with pytest.raises(KeyError), run_lock(tmp_path):
            raise KeyError


def test_a_place_that_cannot_hold_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DistillSpecError, match="cannot write here"), run_lock(tmp_path / "file"):
        pass


_FULL = """
import resource, sys
from pathlib import Path
from distillspec.runtime.atomic import write_text
from distillspec.errors import DistillSpecError
from distillspec.runtime.lock import run_lock
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # as on a full disk: names fit, bytes do not
try:
    with run_lock(Path(sys.argv[1])):
        pass
except DistillSpecError as error:
    print(error.where)
"""


def test_a_lock_file_that_cannot_be_written_is_a_users_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{tmp_path / '.lock'}\n", "")


def test_a_folder_that_has_lost_its_recipe_was_deleted_and_is_not_made_again(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    with pytest.raises(DistillSpecError, match="is gone"), run_lock(run, holds="recipe.yaml"):
        pass
    assert not run.exists()
    run.mkdir()  # whose deletion has come as far as the recipe
    with pytest.raises(DistillSpecError, match="was deleted"), run_lock(run, holds="recipe.yaml"):
        pass
    assert not run.exists()


@pytest.mark.parametrize("name", [".lock", "recipe.yaml"])
def test_no_file_is_written_into_a_folder_that_is_being_deleted(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    with run_lock(tmp_path, holds="recipe.yaml"):
        write_text(tmp_path / "deep" / "a", "text")
        (tmp_path / name).unlink()
        with pytest.raises(DistillSpecError, match="was deleted while"):
            write_text(tmp_path / "deep" / "b", "text")
    assert not (tmp_path / "deep" / "b").exists()
