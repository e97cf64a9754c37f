"""The two servers of a stand-in hub: the Hub's own interface, and the file server that it sends on to."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import unquote, urlsplit

from lolama_hub.testing.faults import Fault, Place
from lolama_hub.testing.hub_state import HubState, Request
from lolama_hub.testing.repository import Repository, list_entry


class Server(ThreadingHTTPServer):
    """A server that knows the hub it is part of; each request has a thread."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: HubState, handler: type[BaseHTTPRequestHandler]) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that break off are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    entry: Request
    breaks_at_once = True  # not within a body

    @property
    def hub(self) -> HubState:
        return cast(Server, self.server).hub

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests read `HubState.requests` instead."""

    def enter(self, place: Place, path: str) -> None:
        """Record the request before it is answered: its client's next one may come to another thread."""
        given = self.headers.get("Range", "")
        self.entry = Request(place, path, given, bool(self.token()))
        self.hub.record(self.entry)

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
            self.answer(200, {"Content-Type": "application/json", **fault.headers}, fault.body)
        elif fault.kind == "reset" and self.breaks_at_once:
            self.reset()
        elif fault.kind in ("close", "stall", "trickle") and self.breaks_at_once:
            if fault.kind != "close":
                self.hub.stopping.wait()
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
        self, repo: Repository, name: str, headers: dict[str, str], fault: Fault | None
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
                    self.entry.sent += here
                    self.break_off(fault, data[here:])
                    return
            self.wfile.write(data)
            self.entry.sent += len(data)
            at += len(data)
            if self.hub.rate:
                time.sleep(max(0.0, (at - start) / self.hub.rate - (time.monotonic() - began)))

    def break_off(self, fault: Fault, rest: bytes) -> None:
        if fault.kind == "stall":
            self.hub.stopping.wait()
        elif fault.kind == "trickle":
            for byte in rest:
                if self.hub.stopping.wait(0.1):
                    break
                self.wfile.write(bytes([byte]))
                self.entry.sent += 1
        elif fault.kind == "reset":
            self.wfile.flush()
            # A reset discards what is on its way, so what went before gets time to arrive.
            time.sleep(0.05)
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


class HubHandler(_Handler):
    """``/api/models/…`` and ``/owner/name/resolve/…``."""

    def do_HEAD(self) -> None:
        """Like GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer a request to the Hub itself."""
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self.enter("revision", path)
            self.revision(match[1], match[2])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self.enter("tree", path)
            self.tree(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            place: Place = "head" if self.command == "HEAD" else "resolve"
            self.enter(place, path)
            self.resolve(match[1], match[2], match[3], place)
        else:
            self.enter("revision", path)
            self.answer(404)

    def repo(self, name: str) -> Repository | None:
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
        """The commit that a revision names."""
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
        """The list of files, in pages."""
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
        """A file, or the address of a large one."""
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


class FileHandler(_Handler):
    """``/owner/name/file?signature=…``."""

    breaks_at_once = False

    def setup(self) -> None:
        """Before a connection is served."""
        # What stands in a large buffer when a client is killed would count as sent.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
        super().setup()

    def do_GET(self) -> None:
        """A large file, for whoever brings a signature."""
        parts = urlsplit(self.path)
        self.enter("file", parts.path)
        owner, name, file = unquote(parts.path).lstrip("/").split("/", 2)
        signed = self.hub.redeem(parts.query.removeprefix("signature="))
        fault = self.hub.take_fault("file", file)
        if self.act_out(fault):
            return
        if not signed:
            self.answer(403, body=b"<Error><Code>AccessDenied</Code></Error>")
            return
        self.send_file(self.hub.repos[f"{owner}/{name}"], file, {}, fault)
