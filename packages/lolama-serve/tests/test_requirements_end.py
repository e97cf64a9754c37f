"""Requirement 20: how a server ends while it answers.

docs/serve-requirements.md tells where each requirement comes from.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_host import PATIENCE
from live_server import (
    CHAT,
    chat_body,
    everything,
    read_until,
    request,
)

from lolama_core.testing.promises import Promises

ENDLESS = {"max_tokens": 200, "ignore_eos": True, "temperature": 0}

SLOW = """
import sys, time
sys.path.insert(0, {folder!r})
from faulty_host import FaultyHost
from lolama_serve import ServeOptions, serve

class Slow(FaultyHost):
    def __init__(self):
        super().__init__()
        self.steps.pass_through = lambda: time.sleep(0.05)

def listening(address):
    print(address, flush=True)

serve(Slow(), ServeOptions(models=["demo"], port=0, parallel=20), listening=listening)
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, whose steps take a while; its address is its first line."""
    code = SLOW.format(folder=str(Path(__file__).parent))
    made = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield made
    made.kill()
    made.communicate()


def open_streams(process: subprocess.Popen[str], count: int) -> list[socket.socket]:
    """Streams of a process that have begun, and last for a while."""
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    asked = request(CHAT, chat_body(stream=True, **ENDLESS))
    made = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(count)]
    for one in made:
        one.sendall(asked)
    for one in made:
        read_until(one, b'"content":"')
    return made


def test_requirement_20_at_sigterm_each_stream_gets_an_end(process: subprocess.Popen[str]) -> None:
    streams = open_streams(process, 3)
    process.send_signal(signal.SIGTERM)
    for stream in streams:
        rest = everything(stream)
        assert b"is being stopped" in rest or b"data: [DONE]" in rest
        assert rest.endswith(b"0\r\n\r\n")  # the whole of a chunked answer
    assert process.wait(PATIENCE) == 0


@pytest.mark.promise
def test_requirement_20_the_process_ends_within_five_seconds(
    process: subprocess.Popen[str], promises: Promises
) -> None:
    streams = open_streams(process, 20)
    with promises.within(5, "the end of a server with open streams"):
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    for stream in streams:
        stream.close()
