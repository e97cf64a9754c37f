"""The bytes of one file: fetched, resumed where an earlier try stopped, and verified.

The requests go through huggingface_hub's session. Its own download functions are not used, because they
begin anew after an interruption, keep up to 10 MB of what has come in memory, wait as long as a server asks
for, and take a body with a flipped bit for the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import httpx2

from lolama_core.protocols.errors import LolamaError, NetworkError
from lolama_hub.download.addresses import origin
from lolama_hub.download.api import RemoteFile, file_url, request_headers
from lolama_hub.download.errors import NO_RESPONSE, NOT_A_HUB_REMEDY, failure, refusal, session
from lolama_hub.download.hugging_face import constants
from lolama_hub.download.retries import Retries, TransientError
from lolama_hub.folder.fields import shown
from lolama_hub.store.place import PARTIAL

_PIECE = 2**20
# A server that sends less than this in a timeout's time has stopped, whatever it trickles.
_SLOWEST = 4096
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")


class _Hash(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def fetch_file(
    repo: str, commit: str, file: RemoteFile, target: Path, progress: Callable[[int], None]
) -> None:
    """Fetch ``file`` to ``target``, which appears when it is whole and verified.

    Args:
        repo: ``owner/name``.
        commit: 40 hexadecimal digits.
        file: What it must be.
        target: Where it belongs; what has come so far stands beside it, in ``target`` + `PARTIAL`.
        progress: Is told how many of the bytes are here.

    Raises:
        NetworkError: if it did not come, or came damaged; a damaged file is removed.
        AuthorisationError: if this user may not have it.
        OSError: if the disk does not take it.
    """
    partial = target.with_name(target.name + PARTIAL)
    resumed = partial.exists()
    while True:
        with _Partial(partial, file, progress) as growing:
            _receive(repo, commit, file, growing)
            sound = growing.is_sound()
            if sound:
                growing.sync()
        if sound:
            os.replace(partial, target)
            return
        partial.unlink()
        if not resumed:
            reason = f"{file.path} came with another content than the Hub states; it was removed"
            raise NetworkError(repo, reason, "try again; if it stays so, a proxy may change files")
        resumed = False  # what an earlier run left may be to blame: once more, from the start


def verify(path: Path, file: RemoteFile) -> bool:
    """Whether a file that is here already has the size and the content that the Hub states."""
    if path.stat().st_size != file.size:
        return False
    digest = new_hash(file)
    with open(path, "rb", buffering=0) as stream:
        for piece in _pieces(stream):
            digest.update(piece)
    return digest.hexdigest() == file.digest.partition(":")[2]


def is_content(content: bytes, file: RemoteFile) -> bool:
    """The same of a content in memory."""
    digest = new_hash(file)
    digest.update(content)
    return len(content) == file.size and digest.hexdigest() == file.digest.partition(":")[2]


def new_hash(file: RemoteFile) -> _Hash:
    """The hash that the Hub keeps of such a file: sha256, or for small ones git's."""
    if file.digest.startswith("sha256:"):
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def _pieces(stream: object) -> Iterator[memoryview]:
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    while count := stream.readinto(buffer):  # type: ignore[attr-defined] # io.FileIO, however typed
        yield view[:count]


class _Partial:
    """A file that grows: its bytes, their number and their hash in step.

    Args:
        path: Where; what is there already is taken over.
        file: What it is to become.
        progress: Is told the number of bytes.
    """

    def __init__(self, path: Path, file: RemoteFile, progress: Callable[[int], None]) -> None:
        self._file = file
        self._progress = progress
        self._stream = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._pending = bytearray()
        self._hash = new_hash(file)
        self.size = 0
        try:
            self._stream.seek(0)
            if os.fstat(self._stream.fileno()).st_size > file.size:
                self._stream.truncate(0)
            for piece in _pieces(self._stream):
                self._hash.update(piece)
                self.size += len(piece)
            progress(self.size)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *_: object) -> None:
        # What has come is kept for the next run, unless it is the disk that is full.
        with contextlib.suppress(OSError):
            self.flush()
        self._stream.close()

    def append(self, data: bytes) -> None:
        """Take over what came. It is on its way to the disk in pieces of a megabyte, and at the end."""
        self._pending += data
        self.size += len(data)
        if len(self._pending) >= _PIECE:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the system."""
        pending, self._pending = self._pending, bytearray()
        view = memoryview(pending)
        while view:
            view = view[self._stream.write(view) :]
        self._hash.update(pending)
        self._progress(self.size)

    def restart(self) -> None:
        """Forget what is here."""
        self._pending = bytearray()
        self._stream.truncate(0)
        self._hash = new_hash(self._file)
        self.size = 0
        self._progress(0)

    def is_sound(self) -> bool:
        """Whether it is whole and has the hash it should."""
        self.flush()
        return (
            self.size == self._file.size
            and self._hash.hexdigest() == self._file.digest.partition(":")[2]
        )

    def sync(self) -> None:
        """Force it to the disk: a name must not outlive a power failure that its content did not."""
        os.fsync(self._stream.fileno())


def _receive(repo: str, commit: str, file: RemoteFile, growing: _Partial) -> None:
    """Make requests until the file is whole. Each begins at the Hub, which signs a fresh address."""
    url = file_url(repo, commit, file)
    retries = Retries()
    while growing.size < file.size:
        before = growing.size
        try:
            _request(url, repo, file, growing)
        except TransientError as problem:
            found = problem
        except NO_RESPONSE as error:
            failed = failure(error, repo, url)
            if isinstance(failed, LolamaError):
                raise failed from error
            found = failed
        else:
            continue
        if growing.size - before >= _PIECE:
            retries.progressed()
        retries.failed(found)


def _request(url: str, repo: str, file: RemoteFile, growing: _Partial) -> None:
    headers = request_headers()
    if growing.size:
        headers["Range"] = f"bytes={growing.size}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    # The session follows redirects, and sends the token to no other host than the first.
    with session().stream("GET", url, headers=headers, timeout=timeout) as response:
        if response.status_code == 416:  # what is here cannot be the beginning of the file
            growing.restart()
            reason = f"{origin(str(response.url))} has no more of {file.path}"
            raise TransientError(NetworkError(repo, reason, "try again later"))
        if response.status_code not in (200, 206):
            raise refusal(response, repo, file.path)
        _check_announced(response, repo, file, growing)
        _take_body(response, repo, file, growing, timeout)
    if growing.size < file.size:
        reason = f"{origin(str(response.url))} closed the connection within {file.path}"
        raise TransientError(NetworkError(repo, reason, "try again; it goes on where it stopped"))


def _check_announced(
    response: httpx2.Response, repo: str, file: RemoteFile, growing: _Partial
) -> None:
    """Hold what the response says about itself against what is needed."""
    server = origin(str(response.url))
    if response.status_code == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or (int(match[1]), int(match[2])) != (growing.size, file.size):
            growing.restart()
            reason = f"{server} sends another part of {file.path} than it was asked for"
            raise TransientError(NetworkError(repo, reason, "try again later"))
        return
    if growing.size:  # the range was ignored, and this is the whole file
        growing.restart()
    length = response.headers.get("Content-Length", "")
    if "Content-Encoding" not in response.headers and length not in ("", str(file.size)):
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        what = "a web page" if kind == "text/html" else f"{shown(length)} bytes"
        reason = f"{server} sends {what} for {file.path}, which has {file.size} bytes"
        raise NetworkError(repo, reason, NOT_A_HUB_REMEDY)


def _take_body(
    response: httpx2.Response, repo: str, file: RemoteFile, growing: _Partial, timeout: float
) -> None:
    window_end, window_size = time.monotonic() + timeout, growing.size
    for piece in response.iter_bytes():
        if growing.size + len(piece) > file.size:
            growing.restart()
            reason = (
                f"{origin(str(response.url))} sends more of {file.path} than its {file.size} bytes"
            )
            raise TransientError(NetworkError(repo, reason, NOT_A_HUB_REMEDY))
        growing.append(piece)
        now = time.monotonic()
        if now > window_end:
            if growing.size - window_size < _SLOWEST:
                reason = f"{origin(str(response.url))} has all but stopped sending {file.path}"
                raise TransientError(NetworkError(repo, reason, "try again later"))
            window_end, window_size = now + timeout, growing.size
