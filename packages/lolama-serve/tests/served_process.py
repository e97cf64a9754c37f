"""A server in a process of its own, whose steps take a while."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faulty_host import PATIENCE
from live_server import CHAT, chat_body, read_until, request

ENDLESS = {"max_tokens": 200, "ignore_eos": True, "temperature": 0}

_SLOW = """
import sys, time
sys.path.insert(0, {folder!r})
from faulty_host import FaultyHost
from lolama_serve import ServeOptions, log_to, serve

class Slow(FaultyHost):
    def __init__(self):
        super().__init__()
        self.steps.pass_through = lambda: time.sleep(0.05)

def listening(address):
    print(address, flush=True)

log_to(sys.stderr)
serve(Slow(), ServeOptions(models=["demo"], port={port}, parallel=20), listening=listening)
"""


@contextmanager
def slow_process(port: int = 0, stderr: Any = None) -> Iterator[subprocess.Popen[str]]:
    """Start it; its address is its first line."""
    code = _SLOW.format(folder=str(Path(__file__).parent), port=port)
    made = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield made
    finally:
        made.kill()
        made.communicate()


def port_of(process: subprocess.Popen[str]) -> int:
    """Where it listens, once it does."""
    assert process.stdout is not None
    return int(process.stdout.readline().rpartition(":")[2])


def open_streams(port: int, count: int) -> list[socket.socket]:
    """Streams that have begun, and last for a while."""
    asked = request(CHAT, chat_body(stream=True, **ENDLESS))
    made = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(count)]
    for one in made:
        one.sendall(asked)
    for one in made:
        read_until(one, b'"content":"')
    return made
