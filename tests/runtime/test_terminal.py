from __future__ import annotations

import ast
import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from distillspec.runtime.terminal import Terminal

PACKAGE = Path(__file__).parents[2] / "distillspec"
HOSTILE = "a\x1b]0;pwned\x07\x1b[31m\x9b2J\u202eb [red]c[/] [/nothing] :smile: \ud800\r!"


def terminal() -> Terminal:
    return Terminal(file=io.StringIO(), force_terminal=True, width=200)


def written(console: Terminal) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def assert_harmless(text: str) -> None:
    for obeyed in ("\x1b]", "\x07", "\x1b[31m", "\x9b", "\u202e", "\ud800"):
        assert obeyed not in text
    assert "[red]c[/] [/nothing] :smile:" in text


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    console = terminal()
    console.print(HOSTILE)
    console.print(HOSTILE, style="dim", soft_wrap=True)
    console.print(Text(HOSTILE))
    assert_harmless(written(console))
    assert written(console).count("pwned") == 3


def test_hostile_cells_and_titles_of_a_table_keep_it_aligned() -> None:
    console = terminal()
    table = Table("name", title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row("plain")
    console.print(table)
    assert_harmless(written(console))
    plain = [line for line in written(console).splitlines() if "plain" in line or "smile" in line]
    assert len({len(line) for line in plain[1:]}) == 1


def test_a_spinner_and_a_bar_read_no_markup() -> None:
    console = terminal()
    with console.status(HOSTILE) as status:
        status.update(HOSTILE)
    bar = Progress(TextColumn("{task.description}", markup=False), console=console)
    bar.add_task(HOSTILE)
    with bar:
        bar.refresh()
    assert_harmless(written(console))


def calls(path: Path) -> set[str]:
    found = (node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call))  # fmt: skip
    return {name.id for name in found if isinstance(name, ast.Name)}


def test_nothing_else_in_the_package_prints_or_makes_a_console() -> None:
    """Then what the tests above show of the console and of `say` is true of all verbs."""
    places = {
        name: {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if name in calls(p)}
        for name in ("print", "Console")
    }
    assert places == {"print": {"text/foreign.py"}, "Console": set()}


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_log_gets_a_line_of_progress_every_ten_seconds_at_most(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    file = io.StringIO()
    console = Terminal(file=file, force_terminal=is_terminal)
    with console.status("begins", refresh_per_second=0.01) as status:
        for done in range(26):
            clock.now = 100.0 + done
            status.update("\x1b[31mtexts", done=done, total=25)
    lines = [line for line in file.getvalue().splitlines() if line.startswith("\\x1b")]
    expected = ["texts: 10 of 25, 1/s, ETA 0:15", "texts: 20 of 25, 1/s, ETA 0:05"]
    assert lines == ([] if is_terminal else [f"\\x1b[31m{line}" for line in expected])


def test_a_rate_is_of_what_was_done_since_this_process_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    status = Terminal(file=io.StringIO()).status("")
    status.update("answers", done=90, total=100)  # of an earlier run
    clock.now += 60.0
    assert status.text() == "answers: 90 of 100, 1:00"
    status.update("questions", done=90, total=100)
    status.update("answers", done=90, total=100)
    clock.now += 60.0
    status.update("answers", done=92, total=100)
    assert status.text() == "answers: 92 of 100, 2/min, ETA 4:00"


def test_a_note_begins_no_new_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    status = Terminal(file=io.StringIO()).status("")
    status.update("answers", done=0, total=100)
    clock.now += 60.0
    status.update("answers", done=2, total=100, note="1 failed")
    assert status.text() == "answers: 2 of 100, 2/min, ETA 49:00 (1 failed)"


def test_a_log_that_nobody_reads_ends_the_command() -> None:
    code = (
        "import time\nfrom distillspec.runtime import terminal\nterminal.LINE_SECONDS = 0.05\n"
        "with terminal.Terminal().status('working') as status:\n"
        "    for _ in range(600):\n        time.sleep(0.05)\n        status.update('working')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=25) == 1
    finally:
        process.kill()
        process.wait()


def test_a_log_gets_lines_while_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillspec.runtime.terminal.LINE_SECONDS", 0.2)
    file = io.StringIO()
    began = time.monotonic()
    with Terminal(file=file).status("compiling"):
        time.sleep(0.9)
    lines = file.getvalue().splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - began) / 0.2
    assert all(line.startswith("compiling") for line in lines)
    time.sleep(0.4)
    assert file.getvalue().splitlines() == lines  # none after the end


def test_only_rank_0_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("distillspec.runtime.terminal.LINE_SECONDS", 0.0)
    for is_terminal in (True, False):
        file = io.StringIO()
        with Terminal(file=file, force_terminal=is_terminal).status("texts") as status:
            status.update("texts", done=1, total=2)
        assert file.getvalue() == ""
