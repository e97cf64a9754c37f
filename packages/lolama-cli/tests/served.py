"""A running ``lolama serve``, for tests of the commands that ask it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryFile

from warm_program import shared


@contextmanager
def serving(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run ``lolama serve arguments...`` in float32 on a free port; its address."""
    begun, theirs = os.pipe()
    with TemporaryFile() as log, open(os.devnull, "rb") as nothing, open(begun, "rb") as told:
        command = ("serve", *arguments, "--port", "0", "--dtype", "float32")
        pid = shared().begin((nothing.fileno(), theirs, log.fileno()), command, env)
        os.close(theirs)
        line = told.readline().decode()
        log.seek(0)
        assert line.startswith("listening on "), log.read().decode()
        try:
            yield line.split()[-1]
        finally:
            os.kill(pid, signal.SIGTERM)
            code = shared().wait(pid)
        assert code == 0


def running(server: str) -> int:
    """Requests that run at a server."""
    connection = HTTPConnection(server.removeprefix("http://"))
    connection.request("GET", "/slots")
    slots = json.loads(connection.getresponse().read())
    connection.close()
    return sum(slot["is_processing"] for slot in slots)
