"""Pictures are decoded in a process of their own, so that a hostile file can harm no other.

It ends after a bounded processor time, whatever the file asks for; a crash is one error; and what a native
library prints to standard error tells that it filled in what it could not read; nobody else sees it. In
this process neither could be told: no thread can be ended, and the descriptor belongs to all threads.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import threading
from functools import partial
from typing import IO, Any

from PIL import Image

from lolama_core.protocols.child_interpreter import command, search_path
from lolama_core.protocols.errors import ModelError, ResourceError, shortage
from lolama_core.protocols.locks import while_locked

_CHILD = (
    "import json, sys\n"
    "sys.path[:] = json.loads(sys.argv[1])\n"
    "from lolama_vision.decoding import serve\n"
    "serve()\n"
)
_REMEDY = "get the file again, or save it with another program"


def _not_started(error: OSError) -> ResourceError:
    found = shortage(error, "image")
    if found is not None:
        return found
    reason = f"cannot be decoded: no process can be started ({error.strerror})"
    return ResourceError("image", reason, "close other programs")


class _Decoder:
    """The process, started at the first picture, and again after one that ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = -1

    def decode(self, data: bytes) -> tuple[Image.Image, str]:
        """See `decode`. Threads take turns."""
        facts, pixels, message = while_locked(self._lock, partial(self._answer, data))
        if "reason" in facts:
            raise ModelError("image", facts["reason"], facts["remedy"])
        if message:
            reason = f"is damaged or cut short: what decodes it says {message!r}"
            raise ModelError("image", reason, _REMEDY)
        return Image.frombytes("RGB", (facts["width"], facts["height"]), pixels), facts["more"]

    def _answer(self, data: bytes) -> tuple[dict[str, Any], bytes, str]:
        """What `_ask` returns, and what else the process has said."""
        try:
            process = self._process or self._start()
            self._process = process
            assert process.stdin is not None and process.stdout is not None
            return *_ask(process.stdin, process.stdout, data), self._read_stderr()
        except EOFError:
            raise self._died() from None
        except BaseException:
            self.end()  # in the middle of an answer
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            self._stderr, theirs = os.pipe()
        except OSError as error:
            raise _not_started(error) from None
        # A damaged file can make a library print any amount. What does not fit into the pipe is dropped.
        os.set_blocking(self._stderr, False)
        os.set_blocking(theirs, False)
        try:
            return subprocess.Popen(
                command(_CHILD, json.dumps(search_path("lolama_core", "lolama_vision"))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=theirs,
            )
        except OSError as error:
            os.close(self._stderr)
            raise _not_started(error) from None
        finally:
            os.close(theirs)

    def _read_stderr(self) -> str:
        """The first line of what was written to the process's standard error since the last picture."""
        written = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._stderr, 65536):
                written += piece
        return written.decode(errors="replace").strip().partition("\n")[0][:100]

    def _died(self) -> ModelError:
        assert self._process is not None
        code = self._process.wait()
        self.end()
        if code == -signal.SIGPROF:
            reason = "takes far more processor time than a picture of its size needs"
        else:
            reason = f"is damaged: what decodes it ended with status {code}"
        return ModelError("image", reason, _REMEDY)

    def end(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._close(process)
            process.wait()

    def forget(self) -> None:
        """Leave the process to the parent, which this one was forked from."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            self._close(process)
            process.returncode = 0  # so that nobody waits for it

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        os.close(self._stderr)


def _ask(request: IO[bytes], answer: IO[bytes], data: bytes) -> tuple[dict[str, Any], bytes]:
    """One picture through the pipes; see `decoding.serve`.

    Raises:
        EOFError: if the process ended.
    """
    try:
        request.write(len(data).to_bytes(8))
        request.write(data)
        request.flush()
    except BrokenPipeError:
        raise EOFError from None
    facts = json.loads(_read(answer, int.from_bytes(_read(answer, 8))))
    size = 0 if "reason" in facts else 3 * facts["width"] * facts["height"]
    return facts, _read(answer, size)


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


_decoder = _Decoder()
atexit.register(_decoder.end)
os.register_at_fork(after_in_child=_decoder.forget)


def decode(data: bytes) -> tuple[Image.Image, str]:
    """The pixels of a file.

    Args:
        data: All of it.

    Returns:
        The picture, upright, in mode RGB; and what the file holds several of (see `decoding.more_of`).

    Raises:
        ModelError: about "image", if it is no picture, damaged, too large, or takes too long.
        ResourceError: if no process can be started.
    """
    return _decoder.decode(data)
