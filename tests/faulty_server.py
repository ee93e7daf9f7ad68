"""A file server on loopback that does what servers of large files do on bad days, request by request."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Fault = Callable[["Handler", bytes], None]


@dataclass
class Server:
    """``files`` by path; ``faults`` of a path are used up one per request, then it is served well."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True
    url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of every request for a path."""
        return [headers for asked, headers in self.requests if asked == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.state.requests.append((path, {key.lower(): value for key, value in self.headers.items()}))
        content = self.state.files.get(path)
        faults = self.state.faults.get(path, [])
        with contextlib.suppress(ConnectionError):
            if faults:
                faults.pop(0)(self, content or b"")
            elif content is None:
                self.answer(404)
            else:
                self.serve(content)

    def answer(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for key, value in {"content-length": "0", **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def tag(self, content: bytes) -> str:
        return f'"{hashlib.md5(content).hexdigest()}"'

    def serve(self, content: bytes, stop_at: int | None = None, length: int | None = None) -> None:
        """As a good server does; ``stop_at``: hang up before this byte; ``length``: the Content-Length to claim."""
        asked = self.headers.get("Range") if self.state.ranges else None
        condition = self.headers.get("If-Range")
        start = 0
        if asked and condition in (None, self.tag(content)):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.answer(416, content_range=f"bytes */{len(content)}")
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.state.tags:
            self.send_header("ETag", self.tag(content))
        self.send_header("Content-Length", str(len(content) - start if length is None else length))
        self.end_headers()
        self.wfile.write(content[start:stop_at])
        self.wfile.flush()
        if stop_at is not None or length is not None:
            self.close_connection = True


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """That a client hung up is what some tests are about."""


def drop(at: int) -> Fault:
    """Hang up in the middle."""
    return lambda handler, content: handler.serve(content, stop_at=at)


def refuse(code: int, **headers: str) -> Fault:
    return lambda handler, content: handler.answer(code, **headers)


def redirect(to: str) -> Fault:
    return lambda handler, content: handler.answer(302, location=to)


def send(other: bytes) -> Fault:
    """Another content than the file's."""
    return lambda handler, content: handler.serve(other)


def claim(length: int) -> Fault:
    """A wrong Content-Length."""
    return lambda handler, content: handler.serve(content, length=length)


def web_page(handler: Handler, content: bytes) -> None:
    page = b"<html>please log in</html>"
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html; charset=utf-8")
    handler.send_header("Content-Length", str(len(page)))
    handler.end_headers()
    handler.wfile.write(page)


def wrong_part(handler: Handler, content: bytes) -> None:
    """Answers a range with another one."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
    handler.send_header("ETag", handler.tag(content))
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def stall(handler: Handler, content: bytes) -> None:
    """Ten bytes, and then nothing."""
    handler.send_response(200)
    handler.send_header("ETag", handler.tag(content))
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:10])
    handler.wfile.flush()
    handler.state.stopping.wait(10)
    handler.close_connection = True


def trickle(handler: Handler, content: bytes) -> None:
    """A byte now and then: never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    for byte in content:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.state.stopping.wait(0.02):
            break
    handler.close_connection = True


def without_length(handler: Handler, content: bytes) -> None:
    """Neither length nor chunks: the end of the connection is the end of the file."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(content)
    handler.close_connection = True


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    state = Server()
    server = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield state
    finally:
        state.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
