"""Processes that are ended, killed and started anew, and what they listen on and write to."""

from __future__ import annotations

import signal
import socket

import httpx2
import pytest
from faulty_host import PATIENCE, FaultyHost
from live_server import CHAT, chat_body, everything, request
from served_process import open_streams, port_of, slow_process

from lolama_core.protocols.errors import UsageError
from lolama_serve import ServeOptions, listening, serve
from lolama_serve.listening import UntilSignal


def test_row_500_sigterm_ends_streams_and_whatever_else_is_open() -> None:
    with slow_process() as process:
        port = port_of(process)
        streams = open_streams(port, 20)
        halves = [b"", b"GET /hea", request(CHAT, b"", "Content-Length: 500") + b'{"messages"']
        others = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in halves]
        for other, half in zip(others, halves, strict=True):
            other.sendall(half)
        process.send_signal(signal.SIGTERM)
        for stream in streams:
            assert everything(stream).endswith(b"0\r\n\r\n")
        assert process.wait(PATIENCE) == 0
        for other in others:
            everything(other)  # which ends


def test_row_501_after_a_kill_the_next_server_has_the_same_port() -> None:
    with slow_process() as process:
        port = port_of(process)
        streams = open_streams(port, 2)
        process.kill()
        process.wait(PATIENCE)
        with slow_process(port) as next_one:
            assert port_of(next_one) == port
            for stream in open_streams(port, 1):
                stream.close()
        for stream in streams:
            stream.close()


def test_row_538_a_log_that_cannot_be_written_ends_no_answer() -> None:
    with open("/dev/full", "w") as full, slow_process(stderr=full) as process:
        address = f"http://127.0.0.1:{port_of(process)}"
        for _ in range(3):
            answer = httpx2.post(address + CHAT, json=chat_body(max_tokens=2), timeout=PATIENCE)
            assert answer.is_success
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_row_558_a_port_that_is_taken_is_told_before_anything_is_loaded() -> None:
    host = FaultyHost()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=rf"port: {port} of 127\.0\.0\.1 cannot be listened on"
        ):
            serve(host, ServeOptions(port=port, models=["demo"]))
    for wrong in (70_000, -1):
        with pytest.raises(UsageError, match="cannot be listened on"):
            serve(host, ServeOptions(port=wrong, models=["demo"]))
    assert host.loads == []


def test_row_559_of_several_addresses_each_is_listened_on_or_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = FaultyHost()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ServeOptions(host="127.0.0.1,203.0.113.7", port=port, api_keys=["k"], models=["demo"])
    with pytest.raises(UsageError, match=r"203\.0\.113\.7 cannot be listened on") as caught:
        serve(host, options)
    assert host.loads == []
    socket.create_server(("127.0.0.1", port)).close()  # which is let go of
    del caught
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    reached: list[list[int]] = []

    def run(server: UntilSignal, sockets: list[socket.socket]) -> None:
        port = sockets[0].getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), PATIENCE).close()
        reached.append([one.getsockname()[1] - port for one in sockets])

    monkeypatch.setattr(UntilSignal, "run", run)
    for both in ("127.0.0.1, ::1", "0.0.0.0,::"):
        serve(host, ServeOptions(host=both, port=0, api_keys=["k"], models=["demo"]))
    assert reached == [[0, 0], [0, 0]]


def test_row_558_two_servers_that_start_together_do_not_share_a_port() -> None:
    """An address can be bound twice until somebody listens on it."""
    with (
        listening._bound("127.0.0.1", 0, only=True) as held,
        pytest.raises(UsageError, match="cannot be listened on"),
    ):
        listening._bound("127.0.0.1", held.getsockname()[1], only=True)
