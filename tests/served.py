"""`transformers serve` with a copy of the nano target, on loopback: a real endpoint."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NANO = Path(__file__).parents[1] / "checkpoints" / "nano-python"
TEMPLATE = (
    "{% for m in messages %}# {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}# assistant:\n{% endif %}"
)
_PATIENCE = 180.0  # seconds until it serves, on a busy machine


class Served(NamedTuple):
    """url: with /v1. model: the name it serves."""

    url: str
    model: str


def chatty_copy(model: str, folder: Path, template: str = TEMPLATE) -> Path:
    """A copy of a nano model in `folder`, with a chat template; the server samples from all of its
    distribution where a request has a temperature.
    """
    shutil.copytree(NANO / model, folder)
    for name, more in (
        ("tokenizer_config.json", {"chat_template": template}),
        ("generation_config.json", {"do_sample": True, "top_k": 0}),
    ):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **more}))
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """The nano target under the name `./nano`, from `folder`."""
    chatty_copy("target", folder / "nano")
    port = free_port()
    program = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    line = [sys.executable, "-c", program, "serve", "./nano", "--host", "127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*line, "--port", str(port), "--device", "cpu"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _healthy(port):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield Served(f"http://127.0.0.1:{port}/v1", "./nano")
    finally:
        server.terminate()
        server.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
