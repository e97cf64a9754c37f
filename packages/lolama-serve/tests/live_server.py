"""A server as it is started for users, in a thread of its own, and clients that hold on to each byte."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from faulty_host import PATIENCE, FaultyHost

from lolama_serve import ServeOptions, make_app
from lolama_serve.listening import UntilSignal, make_config
from lolama_serve.server import Server

CHAT = "/v1/chat/completions"


def until(holds: Callable[[], object], told: str = "it does not come true") -> None:
    """Wait until something holds."""
    late = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < late, told
        time.sleep(0.002)


@dataclass
class Live:
    """A server that listens.

    Attributes:
        host: Its models.
        own: Its parts.
        port: Where it listens, on 127.0.0.1.
        server: uvicorn's part of it.
    """

    host: FaultyHost
    own: Server
    port: int
    server: UntilSignal

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.server.server_state.connections)

    @property
    def address(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> int:
        """Answers that its engines have been told of and that have not ended."""
        return sum(len(one.running) for one in self.own.pool.loaded.values())

    def get(self, path: str, **more: Any) -> httpx2.Response:
        """Ask for a page."""
        return httpx2.get(self.address + path, timeout=PATIENCE, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx2.Response:
        """Send JSON."""
        return httpx2.post(self.address + path, json=body, timeout=PATIENCE, **more)

    def chat(self, text: str = "Once", /, **body: Any) -> httpx2.Response:
        """Ask for a chat completion."""
        return self.post(CHAT, chat_body(text, **body))

    def events(self, text: str = "Once", /, **body: Any) -> list[dict[str, Any]]:
        """The events of a streamed chat completion, without the last, which has to be ``[DONE]``."""
        return events_of(self.chat(text, stream=True, **body).text)

    def raw(self, data: bytes = b"") -> socket.socket:
        """A connection on which something has been sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        made.sendall(data)
        return made

    def said(self, data: bytes) -> bytes:
        """All that the server says to something, until it ends the connection."""
        with self.raw(data) as connection:
            return everything(connection)

    def metric(self, name: str) -> float:
        """A number of ``/metrics``; 0 if it is not told."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def well(self) -> None:
        """Check that the server answers as if nothing had happened, and that nothing is left in it."""
        self.host.open_all()
        until(lambda: self.own.pool.waiting == 0, "a request stays")
        assert self.chat(max_tokens=2, temperature=0).status_code == 200
        for loaded in self.own.pool.loaded.values():
            assert loaded.running == [] and loaded.users == 0
            until(lambda engine=loaded.engine: not engine.busy, "an engine runs on")  # type: ignore[misc]
            assert loaded.engine.used_cache_bytes == 0


def chat_body(text: str = "Once", /, **body: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"messages": [{"role": "user", "content": text}], **body}


def request(path: str = CHAT, body: Any = None, *lines: str, method: str = "POST") -> bytes:
    """A request as bytes; ``lines`` are further headers."""
    content = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        head.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + content


def everything(connection: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    found = b""
    try:
        while piece := connection.recv(65_536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What comes up to some bytes, and a little after them."""
    found = b""
    while mark not in found:
        piece = connection.recv(65_536)
        assert piece, found
        found += piece
    return found


def status_of(answer: bytes) -> int:
    """The status of a raw answer."""
    return int(answer.split(b" ", 2)[1])


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream that ends as OpenAI's do."""
    lines = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    assert lines[-1] == "data: [DONE]", text[-500:]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def refused(answer: Any, status: int = 400) -> dict[str, Any]:
    """The error of an answer, in its shape."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= {*error}
    assert error["message"] and error["type"]
    return error


class _InThread(UntilSignal):
    """The server, where signals cannot come."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def serving(
    host: FaultyHost | None = None, *, ready: bool = True, **options: Any
) -> Iterator[Live]:
    """Start a server; named arguments are fields of `ServeOptions`.

    Args:
        host: Its models.
        ready: Wait until its models are loaded.
        options: What it is started with.
    """
    host = host or FaultyHost()
    app = make_app(host, ServeOptions(**{"models": ["demo"], **options}))
    own: Server = app.state.server
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # so that little is under way
    server = _InThread(make_config(app), own, lambda: None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the server does not start")
        assert thread.is_alive()
        live = Live(host, own, bound.getsockname()[1], server)
        if ready:
            until(lambda: own.pool.state != "loading", "the model does not load")
        yield live
    finally:
        host.open_all()
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server does not end"


@contextmanager
def streaming(live: Live, text: str = "Once", /, **body: Any) -> Iterator[socket.socket]:
    """A chat whose first event has come, on a connection of its own."""
    asked = chat_body(text, stream=True, **body)
    with live.raw(request(CHAT, asked, "Connection: close")) as connection:
        read_until(connection, b'"role"')
        yield connection
