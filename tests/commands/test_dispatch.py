from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from distillspec import __version__
from distillspec.commands.dispatch import COMMANDS, main
from distillspec.errors import DistillSpecError
from distillspec.runtime.torchrun import ERROR_FOLDER
from distillspec.text.foreign import visible

ROOT = Path(__file__).parents[2]
HEAVY = "{'torch', 'transformers', 'lightning', 'datasets', 'numpy', 'deepspeed', 'peft'}"


def fresh(*argv: str) -> subprocess.CompletedProcess[str]:
    """The command line in a new process, which tells on stderr what heavy it has imported."""
    code = (
        "import sys\nfrom distillspec.__main__ import main\n"
        f"try:\n    code = main({list(argv)})\n"
        "except SystemExit as leaving:\n    code = leaving.code\n"
        f"print(sorted({HEAVY} & sys.modules.keys()), file=sys.stderr)\nsys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["run", "--help"],
        ["schema"],
        ["run", "recipes/nano-python.yaml", "--dump-config"],
        ["pretrain", "recipes/nano-python-target.yaml", "--dry-run"],
    ],
    ids=" ".join,
)
def test_help_and_validation_import_nothing_heavy(argv: list[str]) -> None:
    done = fresh(*argv)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("[]")


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    reported = capsys.readouterr().out
    assert all(f"\n  {verb} " in reported for verb in COMMANDS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([verb, "--help"])
    assert leaving.value.code == 0
    assert f"distillspec {verb}" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"distillspec {__version__}"


@pytest.mark.parametrize(
    ("argv", "what", "fix"),
    [
        (["evalate"], "unknown verb 'evalate'", "did you mean 'evaluate'?"),
        (["xyz"], "unknown verb 'xyz'", "the verbs are run, check"),
        (["run"], "required", "distillspec run --help"),
        (["check", "r.yaml", "--unknown"], "--unknown", "distillspec check --help"),
        (["check", "r.yaml", "--min-speedup", "x"], "must be a number from 0", "--help"),
        (["check", "r.yaml", "--min-speedup", "nan"], "must be a number from 0", "--help"),
        (["run", "none.yaml"], "no such recipe", ""),
        (["run", "/dev/zero"], "this recipe cannot be read: it is a device", "YAML"),
        (["run", "x" * 300], "this recipe cannot be read: File name too long", "YAML"),
        (["run", "recipes/nano-python.yaml", "pair.target=~nobody_here/x"], "", "correct the path"),
    ],
)
def test_a_users_error_leaves_with_1_and_three_lines(
    argv: list[str], what: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 1
    reported = capsys.readouterr()
    first, where, remedy = reported.err.splitlines()
    assert what in first
    assert where.startswith("  where: ")
    assert remedy.startswith("  fix:   ")
    assert fix in remedy
    assert reported.out == ""


def test_flags_may_stand_between_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(ROOT / "recipes/nano-python.yaml")
    assert main(["run", recipe, "seed=3", "--dump-config", "distill.temperature=0.5"]) == 0
    reported = capsys.readouterr().out
    assert "seed: 3" in reported
    assert "temperature: 0.5" in reported


# --- how a verb ends, with a verb that ends so ---------------------------------------------------


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], int]:
    """Runs the command line with a verb `end` that does what it is given."""

    def run(end: Callable[[], int]) -> int:
        verb = ModuleType("end", "`end`: ends.")
        verb.__dict__.update(add_arguments=lambda parser: None, main=lambda arguments: end())
        monkeypatch.setitem(COMMANDS, "end", verb)
        return main(["end"])

    return run


Ending = Callable[[Callable[[], int]], int]


def bug() -> int:
    raise ZeroDivisionError("a bug")


def refused_by_the_system() -> int:
    raise PermissionError(13, "Permission denied", "/some/folder")


def users_error() -> int:
    raise DistillSpecError("what", where="here", fix="so")


def interrupt() -> int:
    raise KeyboardInterrupt


def interrupt_with_a_hint() -> int:
    raise KeyboardInterrupt("resume with: distillspec run a/b")


def test_a_verbs_exit_code_is_passed_on(ending: Ending) -> None:
    assert ending(lambda: 0) == 0
    assert ending(lambda: 2) == 2


def test_a_bug_shows_its_traceback(ending: Ending, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(bug) == 1
    reported = capsys.readouterr().err
    assert reported.startswith("Traceback")
    assert reported.endswith("ZeroDivisionError: a bug\n")


def test_what_the_system_refuses_is_the_users_error(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(refused_by_the_system) == 1
    what, where, fix = capsys.readouterr().err.splitlines()
    assert what == "the system refuses this file or folder: Permission denied"
    assert where == "  where: /some/folder"
    assert "permissions" in fix


def test_an_interrupt_leaves_with_130_and_says_how_to_resume(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(interrupt) == 130
    assert "resumes with: distillspec run RUN-FOLDER" in capsys.readouterr().err
    assert ending(interrupt_with_a_hint) == 130
    assert capsys.readouterr().err == "interrupted; resume with: distillspec run a/b\n"


def test_of_several_processes_the_first_one_says_how_to_resume(
    ending: Ending, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert ending(interrupt) == 130
    assert capsys.readouterr().err == ""


def test_sigterm_leaves_with_143_and_says_how_to_resume(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert ending(terminated) == 143
    assert capsys.readouterr().err.startswith("terminated; a run that was training resumes with")
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupted_comparison_is_started_again_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("distillspec.commands.compare.main", lambda _: interrupt())
    assert main(["compare", "c.yaml"]) == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err


def test_of_several_processes_one_tells_the_common_error(
    ending: Ending,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ERROR_FOLDER, str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    assert ending(users_error) == 1
    assert capsys.readouterr().err == "what\n  where: here\n  fix:   so\n"
    assert ending(users_error) == 1
    assert capsys.readouterr().err == ""
    assert ending(bug) == 1
    assert capsys.readouterr().err == "rank 1 failed as well: ZeroDivisionError: a bug\n"


def test_a_lost_error_folder_does_not_silence_an_error(
    ending: Ending,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ERROR_FOLDER, str(tmp_path / "gone"))
    assert ending(users_error) == 1
    assert capsys.readouterr().err.startswith("what\n")


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m distillspec schema | head -1",
        shell=True, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_the_package_speaks_through_one_handler_however_often_a_verb_is_started() -> None:
    log = logging.getLogger("distillspec")
    kept = log.handlers[:], log.level
    log.handlers.clear()
    try:
        assert main(["schema"]) == 0
        assert main(["schema"]) == 0
        assert len(log.handlers) == 1
        assert log.level == logging.INFO
    finally:
        log.handlers[:], _ = kept[0], log.setLevel(kept[1])


# --- what came from outside ----------------------------------------------------------------------

HOSTILE = "\x1b[2J\x1b]0;pwned\x07\x9b31m\u202e [red]x[/] [/none]"
TINY = """\
pair: {target: "TARGET", draft: "DRAFT"}
data:
  source: {kind: jsonl, path: rows.jsonl, category: topic}
  held_out_percent: 25.0
  max_prompt_tokens: 64
  max_response_tokens: 6
  preview: 2
distill:
  source: {fixed: 0.5, draft: 0.5}
  batch_size: 4
  max_steps: 2
  probe: {every_steps: 2, prompts: 2, gamma: 2, max_new_tokens: 4}
optimizer: {warmup_steps: 1}
hardware: {device: cpu, precision: float32}
evaluate: {suite: suite.yaml, control: false}
"""
TINY_SUITE = """\
prompts: {count: 2}
gammas: [2]
temperatures: [0.0]
max_new_tokens: 4
drafts: [undistilled, distilled]
runner: {kind: eager, dtype: float32}
"""


@pytest.fixture
def hostile(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose data, categories, file and folder names hold control sequences."""
    folder = f"m{HOSTILE.replace('/', '')}"
    shutil.copytree(tiny_pair, tmp_path / folder)
    rows = (
        {"prompt": f"{HOSTILE} def f{i}(x):", "response": f"{HOSTILE}{i}", "topic": HOSTILE}
        for i in range(40)
    )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "suite.yaml").write_text(TINY_SUITE)
    quoted = json.dumps(folder)[1:-1]
    text = TINY.replace("TARGET", f"{quoted}/target").replace("DRAFT", f"{quoted}/draft")
    (tmp_path / "tiny.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return Path(folder)


def test_no_verb_passes_control_characters_to_the_terminal(
    hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(hostile / "target"), str(hostile / "draft")]
    short = ["--minutes", "0.01", "--max-new-tokens", "2", "--runner", "eager"]
    for argv, code in (
        (["run", "tiny.yaml", "--dump-config"], 0),
        (["run", "tiny.yaml", "--dry-run"], 0),
        (["run", "tiny.yaml"], 0),
        (["report", "RUN"], 0),
        (["export", "RUN"], 0),
        (["check", "tiny.yaml"], 0),
        (["generate", "tiny.yaml", "distill.source={target: 1.0}"], 0),
        (["decode", *pair, f"{HOSTILE}\tx\n", "--max-new-tokens", "8", "--temperature", "2"], 0),
        (["tune", *pair, "--prompts", "rows.jsonl", *short], 0),
        (["decode", *pair, f"@{HOSTILE}"], 1),
        (["run", f"{HOSTILE}.yaml"], 1),
        (["run", "tiny.yaml", f"{HOSTILE}=1"], 1),
        (["run", "tiny.yaml", f"distill.divergence='{HOSTILE}'"], 1),
        (["evaluate", HOSTILE], 1),
        ([HOSTILE], 1),
        (["decode", *pair, "\udcff"], 1),
    ):
        run = str(next(Path("checkpoints/runs/tiny").iterdir(), "")) if "RUN" in argv else ""
        assert main([run if word == "RUN" else word for word in argv]) == code, argv
        reported = "".join(capsys.readouterr())
        assert reported and visible(reported) == reported, argv
    page = next(Path("checkpoints/runs/tiny").rglob("report.html")).read_text(encoding="utf-8")
    assert visible(page) == page


def test_a_bug_repeats_no_secret_and_no_control_character(
    ending: Ending, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", "plain-looking-key")

    def fails() -> int:
        raise RuntimeError("\x1b[2J of plain-looking-key at http://me:pass@host")

    assert ending(fails) == 1
    assert capsys.readouterr().err.endswith("RuntimeError: \\x1b[2J of *** at http://***@host\n")


def test_records_and_warnings_of_any_library_are_made_visible(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = logging.getLogRecordFactory(), warnings.formatwarning
    try:
        assert ending(lambda: 0) == 0
        logging.getLogger("another.library").error("says %s", "\x1b[2J")
        assert warnings.formatwarning("\x1b[2J", UserWarning, "f.py", 1).startswith("f.py:1")
        assert "\x1b" not in warnings.formatwarning("\x1b[2J", UserWarning, "f.py", 1)
        record = logging.getLogRecordFactory()("x", 0, "", 0, "%s", ("\x1b[2J",), None)
        assert record.getMessage() == "\\x1b[2J"
    finally:
        logging.setLogRecordFactory(kept[0])
        warnings.formatwarning = kept[1]
    assert "\x1b" not in "".join(capsys.readouterr())


def test_a_working_folder_that_was_deleted_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["--help"]) == 1
    assert "working folder cannot be used" in capsys.readouterr().err
    monkeypatch.undo()


def test_output_that_cannot_be_written_is_an_error_without_a_traceback() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "distillspec", "schema"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "disk is full" in done.stderr and "Traceback" not in done.stderr


def test_a_librarys_thread_that_cannot_write_says_it_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "events.out")

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    with pytest.raises(SystemExit):
        main(["--version"])  # which sets the hook
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    said = capsys.readouterr().err
    assert "disk is full" in said and "events.out" in said and "Traceback" not in said
