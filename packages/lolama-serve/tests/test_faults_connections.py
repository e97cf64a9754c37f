"""Connections that go wrong, and requests that are hardly HTTP."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from faulty_host import FaultyHost
from live_server import (
    CHAT,
    Live,
    chat_body,
    everything,
    read_until,
    request,
    serving,
    status_of,
    streaming,
    until,
)

from lolama_serve import guard
from lolama_serve.connections import Connection

ENDLESS = {"max_tokens": 100, "ignore_eos": True, "temperature": 0}
CLOSE = "Connection: close"


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with serving(FaultyHost(), parallel=2, max_body=1_000_000) as started:
        yield started


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST / HTTP/1.1\r\nX: " + b"a" * 999,
    ],
)
def test_rows_502_to_503_who_begins_no_request_is_sent_away(
    live: Live, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "head_patience", 0.05)
    with live.raw(begun) as silent:
        assert everything(silent) == b""
    monkeypatch.undo()


def test_row_503_byte_by_byte_is_no_faster(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_patience", 0.3)
    with live.raw() as slow:
        slow.settimeout(0.01)
        for _ in range(100_000):
            try:
                slow.sendall(b"a")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("it may go on for ever")


def test_row_503_what_is_kept_alive_may_rest_and_its_next_request_may_not(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live.raw(request("/health", None, method="GET")) as kept:
        read_until(kept, b'{"status":"ok"}')
        monkeypatch.setattr(Connection, "head_patience", 0.05)
        kept.sendall(b"GET /hea")
        assert everything(kept) == b""


@pytest.mark.parametrize("sent", [b"", b'{"messages": ['])
def test_row_504_a_body_that_stops_coming_is_not_waited_for(
    live: Live, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_BODY_PATIENCE", 0.05)
    head = request(CHAT, b"", "Content-Length: 500")
    assert status_of(live.said(head + sent)) == 408


def test_row_505_a_body_that_ends_with_its_connection_is_no_failure(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    with live.raw(request(CHAT, b"", "Content-Length: 500") + b'{"messages"'):
        pass
    live.well()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "path", [CHAT, "/completion", "/v1/embeddings", "/tokenize", "/v1/messages"]
)
def test_row_506_a_body_that_is_said_to_be_a_gigabyte_is_refused_unread(
    live: Live, path: str
) -> None:
    assert status_of(live.said(request(path, b"", "Content-Length: 1073741824", CLOSE))) == 413


def test_row_507_a_body_without_a_length_is_refused_where_it_becomes_too_large(live: Live) -> None:
    head = request(CHAT, None, "Transfer-Encoding: chunked", CLOSE)
    piece = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    with live.raw(head) as sending:
        sent = 0
        try:
            while sent < 2**30:
                sending.sendall(piece)
                sent += 65_536
        except OSError:
            pass
        assert sent < 2**26  # the limit is a megabyte; the rest was under way
    with live.raw(head + piece * 16) as sending:
        assert status_of(read_until(sending, b"\r\n\r\n")) == 413


@pytest.mark.parametrize(
    "lines", [["X: " + "a" * 200_000], [f"X-{number}: a" for number in range(9_000)]]
)
def test_row_508_headers_that_are_bombs_are_refused(live: Live, lines: list[str]) -> None:
    assert status_of(live.said(request("/health", None, *lines, CLOSE, method="GET"))) in (400, 431)


def test_row_509_a_client_that_reads_nothing_does_not_keep_its_place(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "read_patience", 0.05)
    until(lambda: live.connections == 0)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", live.port))
        large = {"content": "word " * 100_000, "with_pieces": True}  # some megabytes of an answer
        deaf.sendall(request("/tokenize", large))
        until(lambda: live.connections == 1)
        until(lambda: live.connections == 0, "it may keep its place")


def test_row_509_its_row_is_free_too(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "read_patience", 0.05)
    until(lambda: live.connections == 0)
    live.host.steps.close()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", live.port))
        large = {"logprobs": True, "top_logprobs": 20, "max_tokens": 450, "ignore_eos": True}
        deaf.sendall(request(CHAT, chat_body(stream=True, **large)))
        live.host.steps.allow(400)  # which do not end it
        until(lambda: live.connections == 0, "it may keep its place")
        until(lambda: live.running == 0, "it may keep its row")


def test_row_510_one_connection_too_many_is_told_so(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "most", 3)
    until(lambda: live.connections == 0)
    with streaming(live, **ENDLESS) as stream:
        held = [live.raw(b"GET") for _ in range(2)]
        with live.raw() as refused:
            answer = everything(refused)
        assert status_of(answer) == 503 and b"Retry-After: 1" in answer
        assert b"[DONE]" in everything(stream)
    for one in held:
        one.close()
    until(lambda: live.said(request("/health", None, CLOSE, method="GET"))[9:12] == b"200")


def test_row_519_streams_of_others_go_on_through_all_of_this(live: Live) -> None:
    alone = live.chat(**ENDLESS).json()["choices"][0]["message"]["content"]
    with streaming(live, **ENDLESS) as good:
        for data in (
            b"\x00\r\n\r\n",
            request(CHAT, b"{"),
            b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
        ):
            for _ in range(5):
                with live.raw(data) as bad:
                    # It ends with a reset.
                    bad.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        told = everything(good).decode()
    pieces = [
        line.split('"content":"')[1].split('"')[0]
        for line in told.splitlines()
        if '"content":"' in line
    ]
    assert "".join(pieces).encode().decode("unicode_escape") in alone
    assert "[DONE]" in told
