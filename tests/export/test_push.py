from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from distillspec.errors import DistillSpecError
from distillspec.export.push import check_repository, push

TOKEN = "hf_notarealtoken0123456789"


class SmallHub(ThreadingHTTPServer):
    """Speaks as much of the Hub's protocol as an upload of small files needs, on this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.made: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.authorization: set[str | None] = set()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SmallHub

    def do_POST(self) -> None:
        body = self._body()
        self.server.authorization.add(self.headers.get("authorization"))
        if self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer(200, {"files": [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]})  # fmt: skip
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(404, {"error": "not here"}, {"X-Error-Code": "RepoNotFound"})

    def _create(self, wanted: dict[str, Any]) -> None:
        self.server.made = wanted
        if wanted["organization"] == "somebody-else":
            self._answer(403, {"error": f"forbidden for Bearer {TOKEN}"})
        elif wanted["organization"] == "broken":
            self._answer(400, {"error": f"bad request of {TOKEN}"})
        else:
            name = f"{wanted['organization']}/{wanted['name']}"
            self._answer(200, {"url": f"{self.server.endpoint}/{name}", "name": name, "id": name})

    def _commit(self, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        url = f"{self.server.endpoint}/user/draft/commit/abc"
        self._answer(200, {"success": True, "commitUrl": url, "commitOid": "abc"})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        for name, content in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, content)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    server = SmallHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draft = tmp_path / "draft"
    draft.mkdir()
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (draft / name).write_text("{}")
    (draft / "README.md").write_text("---\ntags: [draft-model]\n---\n# draft\n")
    (draft / "model.safetensors").write_bytes(bytes(range(256)))
    return draft


def _push_online(folder: Path, repository: str, endpoint: str, token: str | None) -> str:
    """What a process that may use the network prints; huggingface_hub reads HF_* at import."""
    code = f"""
import logging
from pathlib import Path
logging.basicConfig(level=logging.DEBUG)
from distillspec.errors import DistillSpecError
from distillspec.export.push import push
try:
    print("url:", push(Path({str(folder)!r}), {repository!r}, True))
except DistillSpecError as error:
    print("refused:", error)
"""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder.parent / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env=environment, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout + done.stderr


# --- without a network ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["draft", "", "user/", "/draft", "a/b/c", "user/dr aft", "user/-x", "user/x.git", "ü/x"]
)
def test_a_malformed_name_is_refused_before_anything_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="Hub repository"):
        push(tmp_path / "nowhere", name, private=True)


def test_a_well_formed_name_passes() -> None:
    check_repository("user/nano-python_draft.v1")


def test_a_folder_that_is_no_export_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(DistillSpecError, match=r"has no model\.safetensors"):
        push(folder, "user/draft", private=True)


def test_offline_the_upload_is_refused_with_the_way_out(folder: Path) -> None:
    with pytest.raises(DistillSpecError, match="HF_HUB_OFFLINE is set") as caught:
        push(folder, "user/draft", private=True)
    assert "unset HF_HUB_OFFLINE" in caught.value.fix


# --- with a small hub on this machine ------------------------------------------------------------


def test_every_file_arrives_and_the_token_is_never_shown(folder: Path, hub: SmallHub) -> None:
    said = _push_online(folder, "user/draft", hub.endpoint, TOKEN)
    assert f"url: {hub.endpoint}/user/draft" in said
    assert hub.files == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert (hub.made["organization"], hub.made["name"]) == ("user", "draft")
    assert hub.made.get("private") is True or hub.made.get("visibility") == "private"
    assert f"Bearer {TOKEN}" in hub.authorization
    assert TOKEN not in said


def test_without_a_token_nothing_is_sent(folder: Path, hub: SmallHub) -> None:
    said = _push_online(folder, "user/draft", hub.endpoint, None)
    assert "needs a token" in said
    assert "HF_TOKEN" in said
    assert hub.made == {}


def test_a_token_that_may_not_write_is_explained_and_not_shown(folder: Path, hub: SmallHub) -> None:
    said = _push_online(folder, "somebody-else/draft", hub.endpoint, TOKEN)
    assert "no write access" in said
    assert TOKEN not in said
    assert hub.files == {}


def test_another_refusal_names_its_status_and_not_the_token(folder: Path, hub: SmallHub) -> None:
    said = _push_online(folder, "broken/draft", hub.endpoint, TOKEN)
    assert "refused the upload (HTTP 400)" in said
    assert TOKEN not in said


def test_a_hub_that_does_not_answer_is_explained(folder: Path, hub: SmallHub) -> None:
    hub.server_close()
    said = _push_online(folder, "user/draft", hub.endpoint, TOKEN)
    assert "cannot be reached" in said
    assert str(folder) in said
    assert TOKEN not in said
