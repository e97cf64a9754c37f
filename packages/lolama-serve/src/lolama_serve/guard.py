"""What every request passes: its host, origin and key are checked, its body is limited, and it is logged."""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lolama_serve.errors import APIError, error_body
from lolama_serve.logs import logger, request_id
from lolama_serve.options import ServeOptions

PUBLIC_PATHS = frozenset({"/", "/page.css", "/health", "/v1/health"})
"""What needs no key: a page that says nothing of models, and whether the server is ready."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_BODY_PATIENCE = 30.0
"""Seconds between two pieces of a body. A client that is slower is sent away, or it would hold its place."""

_MOST_HEADERS = 32 * 1024
"""Bytes of all headers of a request. uvicorn's limit counts only where they come in several pieces."""

_METHODS = "GET, POST, DELETE, OPTIONS"


class Guard:
    """A pure ASGI middleware, so that a client that leaves is noticed at once.

    Args:
        app: What answers.
        options: Hosts, origins, keys and limits.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app, self._options = app, options
        self._keys = [key.encode() for key in options.api_keys]
        hosts = [*_LOOPBACK, *options.allowed_hosts, *options.host.split(",")]
        self._hosts = {host.strip().lower().strip("[]") for host in hosts}
        # A server that listens on all addresses does not know their names.
        self._any_host = bool(self._hosts & {"0.0.0.0", "::", "*"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        own_id = uuid.uuid4().hex
        request_id.set(own_id)
        started, status = time.monotonic(), 0

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), headers, own_id)
                if status == 408:  # what still comes of the body is no request
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._answer(scope, headers, receive, reply)
        finally:
            facts = {
                "event": "request",
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(time.monotonic() - started, 4),
            }
            logger.info(facts)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        try:
            self._check_host(headers)
            if scope["method"] == "OPTIONS" and "origin" in headers:
                await _respond(send, 200, b"")
                return
            self._check_origin(headers)
            self._check_key(scope, headers)
            self._check_length(headers)
        except APIError as error:
            await send_error(scope, send, error)
            return
        await self._app(scope, self._limited(receive), send)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not this server's: a page elsewhere may have let its own name point here."""
        if self._any_host:
            return
        try:
            host = urlsplit(f"//{headers.get('host', '')}").hostname
        except ValueError:  # a bracket without its other one
            host = None
        if host is None or host.lower() not in self._hosts:
            raise APIError(
                403,
                "the header Host names another server; start the server with this name as an allowed host",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None and not self._may_use(origin):
            raise APIError(
                403,
                "pages of this origin may not use the server; start it with this one as a CORS origin",
            )

    def _may_use(self, origin: str) -> bool:
        return "*" in self._options.cors_origins or self._is_known(origin)

    def _is_known(self, origin: str) -> bool:
        """Whether an origin is named, or on this machine."""
        if origin in self._options.cors_origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.hostname in _LOOPBACK

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if not self._keys or scope["path"] in PUBLIC_PATHS:
            return
        given = headers.get("x-api-key", "")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given = token.strip()
        # Every key is compared, in a time that tells nothing of them. Headers are bytes, which Starlette
        # reads as Latin-1; those of a key with other letters are UTF-8.
        right = [hmac.compare_digest(given.encode("latin-1"), key) for key in self._keys]
        if not any(right):
            raise APIError(401, "give a key, as Authorization: Bearer KEY or X-Api-Key: KEY")

    def _check_length(self, headers: Headers) -> None:
        if sum(len(name) + len(value) for name, value in headers.raw) > _MOST_HEADERS:
            raise APIError(431, f"the headers have more than {_MOST_HEADERS:,} bytes")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._options.max_body:
            raise _too_large(self._options.max_body)

    def _limited(self, receive: Receive) -> Receive:
        taken, whole = 0, False

        async def limited() -> Message:
            nonlocal taken, whole
            if whole:  # what comes now is the client's leaving, for which there is all the time
                return await receive()
            try:
                async with asyncio.timeout(_BODY_PATIENCE):
                    message = await receive()
            except TimeoutError:
                reason = f"the body stopped coming for {_BODY_PATIENCE:.0f} s"
                raise APIError(408, reason, type="invalid_request_error") from None
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if taken > self._options.max_body:
                    raise _too_large(self._options.max_body)
            return message

        return limited

    def _add_headers(self, answer: MutableHeaders, asked: Headers, own_id: str) -> None:
        answer["X-Request-Id"] = own_id
        answer["X-Content-Type-Options"] = "nosniff"
        answer["Cache-Control"] = "no-store"
        origin = asked.get("origin")
        if origin is None:
            return
        answer["Vary"] = "Origin"
        if self._may_use(origin):
            # Spelled as they mostly are, for clients that take them for names with cases.
            told = [
                (b"Access-Control-Allow-Origin", origin),
                (b"Access-Control-Allow-Methods", _METHODS),
                (b"Access-Control-Allow-Headers", "*"),
            ]
            if self._is_known(origin):  # what a browser keeps for this server is not for any page
                told.append((b"Access-Control-Allow-Credentials", "true"))
            answer.raw.extend((name, value.encode("latin-1")) for name, value in told)


def _too_large(limit: int) -> APIError:
    return APIError(413, f"the body is larger than the {limit:,} bytes that it may have")


async def send_error(scope: Scope, send: Send, error: APIError) -> None:
    """Answer with an error."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    await _respond(send, error.status, error_body(scope["path"], error), headers)


async def _respond(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
