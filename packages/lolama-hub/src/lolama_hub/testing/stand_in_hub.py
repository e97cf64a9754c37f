"""A stand-in of the Hub's HTTP interface on this machine, as far as downloading models needs it.

    with StandInHub({"owner/name": {"config.json": b"{}", "model.safetensors": path}}) as hub:
        ...  # clients get hub.environment(); hub.faults orders faults; hub.requests tells what came

Large files are served by a second server on another port, by an address that is signed and good for one
use, as the real Hub does. Not covered: the Xet protocol, TLS.

    python -m lolama_hub.testing.stand_in_hub owner/name=FOLDER --rate 20

serves a folder by hand, at 20 MB/s, and prints the variables that a client needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import cast
from urllib.parse import unquote, urlsplit

from lolama_hub.testing.faults import Fault, Place

LARGE = 64 * 1024
"""Files of this size and more are "large": hashed with sha256, and served by the second server."""

_PIECE = 256 * 1024


@dataclass(frozen=True)
class Request:
    """A request that came. ``sent`` is how many bytes of the body went out."""

    place: str
    path: str
    range: str
    authorised: bool
    sent: int


@dataclass
class _Repo:
    commit: str
    files: dict[str, bytes | Path]
    digests: dict[str, str] = field(default_factory=dict)

    def size(self, name: str) -> int:
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def is_large(self, name: str) -> bool:
        return self.size(name) >= LARGE or name.endswith((".safetensors", ".bin", ".model"))

    def pieces(self, name: str, start: int = 0) -> Iterator[bytes]:
        content = self.files[name]
        if isinstance(content, bytes):
            for at in range(start, len(content), _PIECE):
                yield content[at : at + _PIECE]
            return
        with open(content, "rb") as file:
            file.seek(start)
            while piece := file.read(_PIECE):
                yield piece

    def digest(self, name: str) -> str:
        if name not in self.digests:
            git = hashlib.sha1(b"blob %d\0" % self.size(name), usedforsecurity=False)
            digest = hashlib.sha256() if self.is_large(name) else git
            for piece in self.pieces(name):
                digest.update(piece)
            self.digests[name] = digest.hexdigest()
        return self.digests[name]


def list_entry(repo: _Repo, name: str) -> dict[str, object]:
    """What the list of a repository's files says about one."""
    size, digest = repo.size(name), repo.digest(name)
    entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": digest}
    if repo.is_large(name):
        entry["oid"] = hashlib.sha1(digest.encode(), usedforsecurity=False).hexdigest()
        entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
    return entry


class StandInHub:
    """Two servers on this machine, running while the ``with`` block does.

    Args:
        repos: ``owner/name`` → file name → content, or the path of a file that holds it.
        rate: Bytes a second of a large file; 0 for as fast as it goes.

    Attributes:
        faults: Are acted out in order; each is used up.
        requests: Every request so far.
        gated: Repositories whose files need a token in ``members``.
        tokens: Tokens that exist.
        members: Those among them that were given access to what is gated.
        listing: What replaces the list of files of a repository, if anything.
        page_size: Files a page of a list.
    """

    def __init__(
        self, repos: Mapping[str, Mapping[str, bytes | Path]], *, rate: float = 0.0
    ) -> None:
        self.repos: dict[str, _Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.gated: set[str] = set()
        self.tokens: set[str] = set()
        self.members: set[str] = set()
        self.listing: dict[str, object] = {}
        self.page_size = 1000
        self.rate = rate
        self.stopping = threading.Event()
        self._signatures: set[str] = set()
        self._lock = threading.Lock()
        for repo, files in repos.items():
            self.put(repo, files)
        self._servers = [_Server(self, _HubHandler), _Server(self, _FileHandler)]
        self.endpoint, self.file_server = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def put(self, repo: str, files: Mapping[str, bytes | Path]) -> str:
        """Publish a commit; returns it."""
        names = json.dumps([repo, sorted(files), len(self.repos), time.time_ns()])
        commit = hashlib.sha1(names.encode(), usedforsecurity=False).hexdigest()
        self.repos[repo] = _Repo(commit, dict(files))
        return commit

    def environment(self) -> dict[str, str]:
        """What a client on this machine needs in its environment."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_HUB_ETAG_TIMEOUT": "2",
            "NO_PROXY": "127.0.0.1",
        }

    def bytes_sent(self) -> int:
        """Bytes of file contents that went out."""
        return sum(
            request.sent for request in self.requests if request.place in ("resolve", "file")
        )

    def __enter__(self) -> StandInHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # For the handlers, each of which runs in a thread of its own.

    def take_fault(self, place: Place, name: str) -> Fault | None:
        """The next fault for this request, if there is one."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.place == place and fault.name in ("", name):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def sign(self) -> str:
        """A signature that opens one large file once."""
        with self._lock:
            signature = f"{len(self._signatures):x}-{time.time_ns():x}"
            self._signatures.add(signature)
            return signature

    def redeem(self, signature: str) -> bool:
        """Whether it was given out and not used yet."""
        with self._lock:
            known = signature in self._signatures
            self._signatures.discard(signature)
            return known

    def record(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: StandInHub, handler: type[BaseHTTPRequestHandler]) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that break off are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sent = 0
    breaks_at_once = True  # not within a body

    @property
    def hub(self) -> StandInHub:
        return cast(_Server, self.server).hub

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests read `StandInHub.requests` instead."""

    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def answer(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def act_out(self, fault: Fault | None) -> bool:
        """Answer with the fault, where it is one that replaces the answer."""
        if fault is None:
            return False
        if fault.kind == "status":
            self.answer(fault.status, fault.headers, b"refused")
        elif fault.kind == "html":
            self.answer(
                200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><title>Welcome</title>"
            )
        elif fault.kind == "body":
            self.answer(200, {"Content-Type": "application/json"}, fault.body)
        elif fault.kind == "reset" and self.breaks_at_once:
            self.reset()
        elif fault.kind in ("close", "stall", "trickle") and self.breaks_at_once:
            if fault.kind != "close":
                self.hub.stopping.wait(30)
            self.close_connection = True
        else:
            return False
        return True

    def reset(self) -> None:
        """Break the connection as a router does: not closed, but torn."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def send_file(
        self, repo: _Repo, name: str, headers: dict[str, str], fault: Fault | None
    ) -> None:
        size = repo.size(name)
        start = 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        status = 200
        if match and not (fault and fault.kind == "ignore-range"):
            start = int(match[1])
            if start >= size:
                self.answer(416, {"Content-Range": f"bytes */{size}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        headers["Content-Length"] = str(size - start)
        headers["Accept-Ranges"] = "bytes"
        self.send_response(status)
        for header, value in changed(headers, fault).items():
            self.send_header(header, value)
        self.end_headers()
        at = start
        began = time.monotonic()
        for piece in repo.pieces(name, start):
            data = piece
            if fault and at <= fault.after < at + len(piece):
                here = fault.after - at
                if fault.kind == "flip":
                    data = data[:here] + bytes([data[here] ^ 1]) + data[here + 1 :]
                elif fault.kind in ("reset", "close", "stall", "trickle"):
                    self.wfile.write(data[:here])
                    self.sent += here
                    self.break_off(fault, data[here:])
                    return
            self.wfile.write(data)
            self.sent += len(data)
            at += len(data)
            if self.hub.rate:
                time.sleep(max(0.0, (at - start) / self.hub.rate - (time.monotonic() - began)))

    def break_off(self, fault: Fault, rest: bytes) -> None:
        if fault.kind == "stall":
            self.hub.stopping.wait(30)
        elif fault.kind == "trickle":
            for byte in rest[:300]:
                if self.hub.stopping.wait(0.1):
                    break
                self.wfile.write(bytes([byte]))
                self.sent += 1
        elif fault.kind == "reset":
            self.wfile.flush()
            time.sleep(
                0.05
            )  # so that what went before arrives: a reset discards what is on its way
            self.reset()
            return
        self.close_connection = True


def changed(headers: dict[str, str], fault: Fault | None) -> dict[str, str]:
    """Headers as a fault wants them."""
    if fault and fault.kind == "drop-headers":
        return {name: value for name, value in headers.items() if name not in fault.headers}
    if fault and fault.kind == "headers":
        return {**headers, **fault.headers}
    return headers


class _HubHandler(_Handler):
    """``/api/models/…`` and ``/owner/name/resolve/…``."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.sent = 0
        path = unquote(urlsplit(self.path).path)
        place: Place = "revision"
        try:
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
                self.revision(match[1], match[2])
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
                place = "tree"
                self.tree(match[1], match[2])
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                place = "head" if self.command == "HEAD" else "resolve"
                self.resolve(match[1], match[2], match[3], place)
            else:
                self.answer(404)
        finally:
            given = self.headers.get("Range", "")
            self.hub.record(Request(place, path, given, bool(self.token()), self.sent))

    def repo(self, name: str) -> _Repo | None:
        """The repository, or None after an answer that refuses it."""
        token = self.token()
        if token and token not in self.hub.tokens:
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self.answer(401, message)
            return None
        repo = self.hub.repos.get(name)
        if repo is None:
            self.answer(404 if token else 401, {"X-Error-Code": "RepoNotFound"})
        return repo

    def revision(self, name: str, revision: str) -> None:
        if self.act_out(self.hub.take_fault("revision", "")):
            return
        repo = self.repo(name)
        if repo is None:
            return
        if revision not in ("main", repo.commit):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            return
        self.answer(200, body=json.dumps({"id": name, "sha": repo.commit}).encode())

    def tree(self, name: str, commit: str) -> None:
        if self.act_out(self.hub.take_fault("tree", "")):
            return
        repo = self.repo(name)
        if repo is None:
            return
        entries = self.hub.listing.get(name)
        if entries is None:
            entries = [list_entry(repo, file) for file in repo.files]
        headers = {}
        if isinstance(entries, list) and len(entries) > self.hub.page_size:
            match = re.search(r"cursor=(\d+)", self.path)
            start = int(match[1]) if match else 0
            end = start + self.hub.page_size
            if end < len(entries):
                base = re.sub(r"&cursor=\d+", "", self.path)
                following = f"{self.hub.endpoint}{base}&cursor={end}"
                headers["Link"] = f'<{following}>; rel="next"'
            entries = entries[start:end]
        self.answer(200, headers, json.dumps(entries).encode())

    def resolve(self, name: str, commit: str, file: str, place: Place) -> None:
        fault = self.hub.take_fault(place, file)
        if self.act_out(fault):
            return
        repo = self.repo(name)
        if repo is None:
            return
        if file not in repo.files or commit != repo.commit:
            self.answer(404, {"X-Error-Code": "EntryNotFound"})
            return
        if name in self.hub.gated and self.token() not in self.hub.members:
            self.answer(403 if self.token() else 401, {"X-Error-Code": "GatedRepo"})
            return
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{repo.digest(file)}"'}
        if repo.is_large(file):
            headers["X-Linked-Etag"] = headers["ETag"]
            headers["X-Linked-Size"] = str(repo.size(file))
            headers["Location"] = (
                f"{self.hub.file_server}/{name}/{file}?signature={self.hub.sign()}"
            )
            self.answer(302, changed(headers, fault))
        elif place == "head":
            headers["Content-Length"] = str(repo.size(file))
            self.answer(200, changed(headers, fault))
        else:
            self.send_file(repo, file, headers, fault)


class _FileHandler(_Handler):
    """``/owner/name/file?signature=…``."""

    breaks_at_once = False

    def setup(self) -> None:
        # What stands in a large buffer when a client is killed would count as sent.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
        super().setup()

    def do_GET(self) -> None:
        self.sent = 0
        parts = urlsplit(self.path)
        owner, name, file = unquote(parts.path).lstrip("/").split("/", 2)
        try:
            signed = self.hub.redeem(parts.query.removeprefix("signature="))
            fault = self.hub.take_fault("file", file)
            if self.act_out(fault):
                return
            if not signed:
                self.answer(403, body=b"<Error><Code>AccessDenied</Code></Error>")
                return
            self.send_file(self.hub.repos[f"{owner}/{name}"], file, {}, fault)
        finally:
            given = self.headers.get("Range", "")
            self.hub.record(Request("file", parts.path, given, bool(self.token()), self.sent))


def main() -> None:
    """Serve folders until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A stand-in of the Hub on this machine.")
    parser.add_argument("repos", nargs="+", metavar="owner/name=FOLDER")
    parser.add_argument("--rate", type=float, default=0.0, help="MB a second of a large file")
    options = parser.parse_args()
    repos: dict[str, dict[str, bytes | Path]] = {}
    for argument in options.repos:
        repo, _, folder = argument.partition("=")
        repos[repo] = {path.name: path for path in Path(folder).iterdir() if path.is_file()}
    with StandInHub(repos, rate=options.rate * 1e6) as hub, suppress(KeyboardInterrupt):
        for name, value in hub.environment().items():
            print(f"export {name}={value}", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
