"""Connections that cannot be held for nothing: clients that say nothing, read nothing, or are too many."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_FULL = (
    b'{"error": {"message": "too many connections are open; try again later", '
    b'"type": "unavailable_error", "param": null, "code": null}}'
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)


class Connection(H11Protocol):
    """uvicorn's protocol, with limits for the head of a request that does not come and answers nobody reads.

    Attributes:
        head_patience: Seconds in which a connection has to bring the head of a request, once it is made or
            has begun with one. Between two requests uvicorn's ``timeout_keep_alive`` counts.
        read_patience: Seconds in which a client has to read something of an answer that waits for it.
        ahead: Bytes that a client may send ahead of the answer to its last request.
        most: Connections of a server that are open at the same time.
    """

    head_patience: ClassVar[float] = 20.0
    read_patience: ClassVar[float] = 60.0
    ahead: ClassVar[int] = 64 * 1024
    most: ClassVar[int] = 512

    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; one connection too many is told so."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_REFUSAL)
            transport.close()
        self._head_timer = self.loop.call_later(self.head_patience, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request, or of what its client sends after it was answered."""
        if self.conn.their_state is h11.MUST_CLOSE:
            return  # it has said that its request is the last one
        super().data_received(data)
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) < self.ahead:
            self.flow.resume_reading()  # or nobody would notice that the client leaves
        if self.cycle is not None and not self.cycle.response_complete:
            _end(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_patience, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; or end the connection, where an answer to another one has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        """The client has stopped reading."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It has read most of it."""
        super().resume_writing()
        _end(self._read_timer)
        self._read_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        super().connection_lost(exc)
        _end(self._head_timer)
        self._head_timer = None
        _end(self._read_timer)
        self._read_timer = None

    def _watch(self, unread: int) -> None:
        self._read_timer = self.loop.call_later(self.read_patience, self._look, unread)

    def _look(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread >= before:
            self.transport.abort()
        else:
            self._watch(unread)


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
