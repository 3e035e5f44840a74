"""A small real HTTP server that misbehaves on purpose: one scripted reply after the other."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from distillspec.recipe.endpoint import EndpointConfig

Reply = Callable[["_Handler", dict[str, Any]], None]


class Misbehaving:
    """requests: the bodies that came, in their order. most_at_once: requests under way together."""

    def __init__(self, replies: Iterator[Reply]) -> None:
        self.replies = replies
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.now = 0
        self.lock = threading.Lock()
        self.url = ""

    def endpoint(self, **changes: Any) -> EndpointConfig:
        given = {"url": self.url, "model": "m", "retries": 2, "concurrency": 1}
        return EndpointConfig.model_validate({**given, **changes})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        state: Misbehaving = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with state.lock:
            state.requests.append(body)
            state.times.append(time.monotonic())
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            state.now += 1
            state.most_at_once = max(state.most_at_once, state.now)
            reply = next(state.replies)
        try:
            reply(self, body)
        except (BrokenPipeError, ConnectionResetError):  # whoever asked has lost patience
            self.close_connection = True
        finally:
            with state.lock:
                state.now -= 1

    def send(
        self, status: int, content: bytes, *, kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def misbehaving(replies: Iterator[Reply]) -> Iterator[Misbehaving]:
    state = Misbehaving(replies)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- replies -------------------------------------------------------------------------------------


def good(text: str | None = None, reason: str = "length", **more: Any) -> Reply:
    """The prompt back, or `text`."""

    def reply(handler: _Handler, body: dict[str, Any]) -> None:
        said = f"after {body.get('prompt', '')}" if text is None else text
        choice = {"index": 0, "text": said, "finish_reason": reason}
        if "messages" in body:
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": reason}
        handler.send(200, json.dumps({"model": "m-1", "choices": [choice], **more}).encode())

    return reply


def slowly(seconds: float, then: Reply) -> Reply:
    def reply(handler: _Handler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        then(handler, body)

    return reply


def status(code: int, content: Any = None, **headers: str) -> Reply:
    def reply(handler: _Handler, body: dict[str, Any]) -> None:
        handler.send(code, json.dumps(content or {"error": {"message": "no"}}).encode(), **headers)

    return reply


def raw(content: bytes, kind: str = "application/json") -> Reply:
    def reply(handler: _Handler, body: dict[str, Any]) -> None:
        handler.send(200, content, kind=kind)

    return reply


def json_of(value: Any) -> Reply:
    return raw(json.dumps(value).encode())


def broken_off(handler: _Handler, body: dict[str, Any]) -> None:
    """The connection is closed in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"te')
    handler.wfile.flush()
    handler.close_connection = True


def endless(handler: _Handler, body: dict[str, Any]) -> None:
    """As many bytes as anybody reads."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(2**40))
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b" " * 2**16)


def trickling(handler: _Handler, body: dict[str, Any]) -> None:
    """A byte from time to time, so that no single wait is long."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
