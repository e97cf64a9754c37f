"""Requests and answers: checked bodies, errors in each API's words, streams that end with their client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lolama_serve.errors import APIError, api_error, error_body
from lolama_serve.logs import logger

T = TypeVar("T")
Body = TypeVar("Body", bound=msgspec.Struct)

KEEP_ALIVE = 10.0
"""Seconds without an event after which a stream gives a sign of life: some proxies end what is silent."""

NOT_KEPT = "X-Lolama-Not-Kept"
"""A header of answers: fields of the request that ask for what this server does not promise."""

_encoder = msgspec.json.Encoder()


def to_json(value: Any) -> bytes:
    """JSON of structs, dictionaries, lists, texts and numbers. What is not finite is null."""
    return _encoder.encode(value)


class JSONResponse(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Its body."""
        return to_json(content)


class Stream(Response):
    """An answer that comes in pieces, and ends when its client leaves.

    Args:
        pieces: What is sent. An error is sent as ``failed`` makes it: the answer has begun already.
        held: Closed at the end, after an error and a client that leaves, too.
        failed: Makes the last piece, after an error.
        media_type: The type of the whole.
        keep_alive: What is sent where nothing came for `KEEP_ALIVE` seconds.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        held: AsyncExitStack,
        failed: Callable[[APIError], bytes],
        media_type: str = "text/event-stream",
        keep_alive: bytes = b": keep-alive\n\n",
    ) -> None:
        self._pieces, self._held = pieces, held
        self._failed, self._keep_alive = failed, keep_alive
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"  # or nginx holds the pieces back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; see ASGI."""
        async with self._held:
            await until_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        try:
            async for piece in _with_signs_of_life(self._pieces, self._keep_alive):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:
            _note(error)
            body = self._failed(api_error(error))
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _with_signs_of_life(pieces: AsyncIterator[bytes], sign: bytes) -> AsyncIterator[bytes]:
    """The pieces, and a sign of life wherever none comes for a while."""
    coming: asyncio.Task[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(pieces))
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE)
            if not done:
                yield sign
                continue
            finished, coming = coming, None
            try:
                yield finished.result()
            except StopAsyncIteration:
                return
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
        await pieces.aclose()  # type: ignore[attr-defined] # all are generators


async def until_gone(receive: Receive, work: Awaitable[T]) -> T | None:
    """Do some work, and cancel it if the client leaves first.

    Returns:
        What came of the work; None if the client has left.
    """

    async def leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(leaving())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
        await asyncio.wait({task, gone})
        if gone.done() and not gone.cancelled():
            gone.exception()


def decoded(body: bytes, struct: type[Body]) -> Body:
    """A body as the struct that describes it.

    Raises:
        APIError: naming the field that is wrong.
    """
    try:
        return msgspec.json.decode(body, type=struct)
    except msgspec.ValidationError as error:
        raise _wrong(error, "") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise APIError(400, f"the body is not JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise APIError(400, "the body is nested too deeply") from None


def converted(value: Any, struct: type[Body], place: str) -> Body:
    """A part of a body as the struct that describes it.

    Args:
        value: The part, as JSON has it.
        struct: What it has to be.
        place: Where it stands, such as ``tools[0]``.

    Raises:
        APIError: naming the field that is wrong.
    """
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        raise _wrong(error, place) from None


def _wrong(error: msgspec.ValidationError, within: str) -> APIError:
    """What is wrong with the part of a body that lies at ``within``."""
    reason, _, place = str(error).partition(" - at `$")
    field = (within + place.rstrip("`")).lstrip(".")
    unknown = "unknown field `"
    if unknown in reason:
        name = reason.split("`")[1]
        field = f"{field}.{name}".lstrip(".")
        reason = "is not a parameter that this server knows"
    subject = f"{field}: " if field else "the body: "
    return APIError(400, f"{subject}{reason[:300]}", param=field[:100] or None)


class Endpoint(Route):
    """A route of an API, with what is told of it in the server's description.

    Attributes:
        about: What it does, in a line.
        body: What its body has to be; None if it takes none.
    """

    about: str = ""
    body: type[msgspec.Struct] | None = None


def get(path: str, function: Callable[[Request], Awaitable[Response]], about: str) -> Endpoint:
    """A route that is asked without a body; see `post`."""

    async def answer(request: Request) -> Response:
        return await _answered(request, function(request))

    made = Endpoint(path, answer, methods=["GET"])
    made.about = about
    return made


def post(
    path: str, body: type[Body], function: Callable[[Body], Awaitable[Response]], about: str
) -> Endpoint:
    """A route whose errors are told as its API tells them, and whose work ends when its client leaves.

    Args:
        path: Its path.
        body: What the request's body has to be.
        function: Answers a body.
        about: What it does, in a line.
    """

    async def answer(request: Request) -> Response:
        async def work() -> Response:
            return await function(decoded(content, body))

        try:
            content = await request.body()
        except ClientDisconnect:  # with a part of the body unsent: nobody reads an answer
            return Response(status_code=499)
        except APIError as error:  # too large, or too slow
            return error_response(request.scope["path"], error)
        return await _answered(request, work())

    made = Endpoint(path, answer, methods=["POST"])
    made.about, made.body = about, body
    return made


async def _answered(request: Request, work: Awaitable[Response]) -> Response:
    try:
        response = await until_gone(request.receive, work)
    except Exception as error:
        _note(error)
        return error_response(request.scope["path"], api_error(error))
    return Response(status_code=499) if response is None else response


def with_not_kept(response: Response, fields: Iterable[str]) -> Response:
    """The answer, with the names of the fields that it does not keep in its header."""
    if names := ", ".join(fields):
        response.headers[NOT_KEPT] = names
    return response


def error_response(path: str, error: APIError) -> Response:
    """An error as an answer."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    body = error_body(path, error)
    return Response(body, error.status, headers, media_type="application/json")


def _note(error: Exception) -> None:
    """Log an error that is the server's own, with its traceback."""
    if api_error(error).status == 500:
        logger.error("a request failed", exc_info=error)
