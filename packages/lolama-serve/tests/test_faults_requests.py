"""Requests that are hardly HTTP, or try to be more than one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

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
    until,
)

from lolama_serve.connections import Connection

ENDLESS = {"max_tokens": 100, "ignore_eos": True, "temperature": 0}
CLOSE = "Connection: close"


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with serving(FaultyHost(), parallel=2, max_body=1_000_000) as started:
        yield started


def test_row_511_requests_that_come_ahead_are_answered_in_turn(live: Live) -> None:
    first = request(CHAT, chat_body(max_tokens=3, stream=True))
    second, third = request("/nowhere", {}), request("/health", None, CLOSE, method="GET")
    told = live.said(first + second + third)
    assert [int(part[:3]) for part in told.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]
    assert told.index(b"[DONE]") < told.index(b" 404 ")


def test_row_511_who_leaves_takes_what_came_ahead_along(live: Live) -> None:
    taken = len(live.host.taken)
    live.host.steps.close()
    asked = request(CHAT, chat_body(stream=True, **ENDLESS))
    with live.raw(asked) as many:
        read_until(many, b'"role"')
        many.sendall(asked * 49)
    until(lambda: live.own.pool.waiting == 0)
    live.host.steps.open()
    live.well()
    assert len(live.host.taken) - taken < 20


def test_row_511_nothing_is_answered_after_what_is_said_to_be_the_last(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    live.host.steps.close()
    with live.raw(request(CHAT, chat_body(stream=True, **ENDLESS), CLOSE)) as said:
        read_until(said, b'"role"')
        said.sendall(request("/health", None, method="GET"))
        live.host.steps.open()
        told = everything(said)
    assert told.endswith(b"0\r\n\r\n") and b"HTTP/1.1" not in told
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_row_511_so_much_is_taken_ahead_and_no_more(live: Live) -> None:
    until(lambda: live.connections == 0)
    live.host.steps.close()
    with live.raw(request(CHAT, chat_body(stream=True, **ENDLESS))) as eager:
        eager.setblocking(False)
        until(lambda: live.connections == 1)
        [connection] = live.server.server_state.connections
        assert isinstance(connection, Connection)

        def waits() -> bool:
            with suppress(BlockingIOError):
                eager.send(request("/health", None, method="GET") * 1_000)
            return connection.flow.read_paused

        until(waits, "there is no end to it")
        assert len(connection.conn.trailing_data[0]) < 2**20


def test_row_512_a_client_that_waits_for_100_is_told_to_go_on_or_refused(live: Live) -> None:
    body = b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}'
    head = request(CHAT, b"", f"Content-Length: {len(body)}", "Expect: 100-continue", CLOSE)
    with live.raw(head) as waiting:
        assert status_of(read_until(waiting, b"\r\n\r\n")) == 100
        waiting.sendall(body)
        assert status_of(everything(waiting)) == 200
    large = request(CHAT, b"", "Content-Length: 99999999", "Expect: 100-continue", CLOSE)
    assert status_of(live.said(large)) == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/health", 200),
        ("HEAD", CHAT, 405),
        ("GET", CHAT, 405),
        ("PUT", CHAT, 405),
        ("DELETE", "/health", 405),
        ("OPTIONS", CHAT, 405),
        ("TRACE", "/health", 405),
        ("BREW", "/health", 405),
        ("BREW", "/nowhere", 404),
    ],
)
def test_row_513_other_methods_are_refused_with_those_that_there_are(
    live: Live, method: str, path: str, status: int
) -> None:
    answer = live.said(request(path, None, CLOSE, method=method))
    assert status_of(answer) == status
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (b"\r\nallow: " in head.lower()) is (status == 405)
    assert (method == "HEAD") is (body == b"")
    assert body == b"" or b"GET /openapi.json" in body
    assert (f"does not take {method};".encode() in body) is (status == 405 and method != "HEAD")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n",
        b"GET /h\x80\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5, 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_row_514_what_is_no_request_is_refused_and_its_connection_ended(
    live: Live, data: bytes
) -> None:
    with live.raw(data) as connection:
        answer = everything(connection)
    assert answer == b"" or 400 <= status_of(answer) < 500


def test_row_514_the_rest_of_a_refused_body_may_be_nonsense(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    head = request(CHAT, None, "Transfer-Encoding: chunked")
    with live.raw(head + b"10000\r\n" + b"a" * 65_536 + b"\r\n") as sending:
        sending.sendall((b"10000\r\n" + b"a" * 65_536 + b"\r\n") * 15)
        assert status_of(read_until(sending, b"}}")) == 413
        sending.sendall(b"no length\r\n")
        assert everything(sending) == b""
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_row_515_two_lengths_of_one_body_smuggle_nothing(live: Live) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    both = [f"Content-Length: {5 + len(hidden)}", "Transfer-Encoding: chunked", CLOSE]
    told = live.said(request(CHAT, None, *both) + b"0\r\n\r\n" + hidden)
    assert told.count(b"HTTP/1.1 ") == 1
    twice = request(CHAT, None, "Content-Length: 2", "Content-Length: 3", CLOSE)
    assert status_of(live.said(twice + b"{}")) == 400


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "nonsense"])
def test_row_516_no_connection_becomes_another_protocol(live: Live, protocol: str) -> None:
    lines = ["Connection: upgrade, close", f"Upgrade: {protocol}", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    assert status_of(live.said(request("/health", None, *lines, method="GET"))) == 200
    assert status_of(live.said(request(CHAT, None, *lines, method="GET"))) == 405


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/%68ealth", 200),
        ("/health/", 404),
        ("//health", 404),
        ("/../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("/v1/models/%00", 404),
        ("/v1/models/%ff%fe", 404),
        ("/v1/models/a%0d%0aX-Forged:%201", 404),
        ("/v1/models/" + "a" * 9_000, 404),
        ("/health?a=%0d%0aX-Forged:%201&b", 200),
        ("http://evil.example/health", 404),
        ("*", 404),
    ],
)
def test_rows_517_and_518_odd_paths_are_names_and_nothing_else(
    live: Live, path: str, status: int
) -> None:
    answer = live.said(request(path, None, CLOSE, method="GET"))
    assert status_of(answer) in (status, 400)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\nX-Forged" not in head and b"root:" not in body


@pytest.mark.parametrize("value", ["a\r\nX-Forged: 1", "a\nX-Forged: 1", "a\x00", "\x1b[31mred"])
@pytest.mark.parametrize("name", ["Origin", "X-Request-Id", "Authorization"])
def test_row_518_no_header_of_a_request_becomes_one_of_its_answer(
    live: Live, name: str, value: str
) -> None:
    answer = live.said(request("/v1/models", None, f"{name}: {value}", CLOSE, method="GET"))
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\nx-forged" not in head and b"\x1b" not in head
