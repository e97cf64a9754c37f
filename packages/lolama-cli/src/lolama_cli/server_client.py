"""A running ``lolama serve``, as the commands ask it: whether it is the right one, and for its answers.

Nothing here imports torch or a tokenizer: the server has them.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from lolama import __version__
from lolama.same_store import place_of, store_identity
from lolama_cli.server_option import KEY, OPTION, parts_of
from lolama_core.protocols import errors
from lolama_core.protocols.errors import (
    AuthorisationError,
    LolamaError,
    NetworkError,
    ResourceError,
    UsageError,
)
from lolama_core.protocols.serving_commands import COMMAND_PROTOCOL

if TYPE_CHECKING:
    from socket import socket

_CONNECT = 10.0
"""Seconds until a server that is there has taken a connection."""

_SILENCE = 60.0
"""Seconds without a sign of life, of which the server gives one every ten: however long a prompt takes."""

_MOST_BYTES = 64 * 2**20
"""Bytes of a line of an answer."""

_OTHERWISE = "or give --server none to answer here"


class ServerFailure(LolamaError):
    """An error that the server told, with the command's words and exit code.

    Attributes:
        kind: What the server calls it, such as ``queue_full``.
        retry_after: Seconds after which to try again; None if that is no help.
    """

    def __init__(self, subject: str, reason: str, remedy: str = "") -> None:
        super().__init__(subject, reason, remedy)
        self.kind = ""
        self.retry_after: float | None = None


class ServerClient:
    """Asks one server, one question after another, over one connection.

    Args:
        address: Its address, such as ``http://127.0.0.1:8080``.
    """

    def __init__(self, address: str) -> None:
        parts = parts_of(address)
        assert parts.hostname is not None
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self.address, self._path = address, parts.path.rstrip("/")
        self._connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=_CONNECT)
        self._headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        keys = os.environ.get(KEY, "").split()
        if keys:  # as bytes: http.client would write text as Latin-1, and the server reads UTF-8
            self._headers["Authorization"] = b"Bearer " + os.fsencode(keys[0])

    def another(self) -> ServerClient:
        """A connection of its own to the same server."""
        return ServerClient(self.address)

    def close(self) -> None:
        """Leave. What the server still does for this connection ends."""
        self._connection.close()

    def about(self, model: str) -> dict[str, Any]:
        """What the server tells of itself and of a model, once it is known to be the right one.

        Raises:
            UsageError: if it has another version or another store, or not that model.
            NetworkError: if it does not answer, or is none of lolama's.
            AuthorisationError: if it needs a key.
        """
        asked = {"model": model}
        if (place := place_of(model)) is not None:
            asked["place"] = place
        response = self._send("GET", f"/lolama/server?{urlencode(asked)}", None)
        facts = self._object(self._read(response))
        if facts.get("lolama") is None:
            raise self._no_lolama()
        if (facts["lolama"], facts.get("protocol")) != (__version__, COMMAND_PROTOCOL):
            reason = f"{self.address} is lolama {facts['lolama']!s:.20}, and this is {__version__}"
            if facts["lolama"] == __version__:
                reason = f"{self.address} is another build of this version of lolama"
            raise UsageError(OPTION, reason, f"start it again, {_OTHERWISE}")
        if facts.get("store") != store_identity():
            reason = f"{self.address} has another machine's models, or another LOLAMA_HOME"
            raise UsageError(OPTION, reason, f"start one here, {_OTHERWISE}")
        if "error" in facts:
            raise failure(facts["error"], self.address)
        return facts

    @contextmanager
    def events(self, body: Mapping[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """What the server tells of a prompt, as it comes. Leaving the block early ends its work.

        Raises:
            LolamaError: what the server says is wrong; as `about`.
        """
        response = self._send("POST", "/lolama/generate", json.dumps(body).encode())
        if "ndjson" not in response.headers.get("Content-Type", ""):
            self._read(response)
            raise self._no_lolama()
        try:
            yield self._events(response, body.get("until", "end"))
        finally:
            if not response.isclosed():
                self.close()

    def _events(self, response: http.client.HTTPResponse, until: str) -> Iterator[dict[str, Any]]:
        ended = False
        while True:
            try:
                line = response.readline(_MOST_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken_off(error) from None
            if not line:
                break
            if not line.strip():
                continue
            event = self._object(line)
            if "error" in event:
                response.read()
                raise failure(event["error"], self.address)
            ended = until in event
            yield event
        if not ended:
            raise self._broken_off(None)

    def _send(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        try:
            if self._connection.sock is None:
                self._connection.timeout = _CONNECT
                self._connection.connect()
                cast("socket", self._connection.sock).settimeout(_SILENCE)
            self._connection.request(method, self._path + path, body, self._headers)
            response: http.client.HTTPResponse = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._no_answer(error) from None
        if response.status == 401:
            self.close()
            given = "Authorization" in self._headers
            reason = f"refuses the key in {KEY}" if given else "needs a key"
            remedy = f"set {KEY} to its key, {_OTHERWISE}"
            raise AuthorisationError(OPTION, f"{self.address} {reason}", remedy)
        if response.status >= 400:
            raise self._refused(response)
        return response

    def _refused(self, response: http.client.HTTPResponse) -> LolamaError:
        try:
            told = json.loads(self._read(response))["error"]["message"]
        except (ValueError, KeyError, TypeError):
            return self._no_lolama()
        if response.status == 404:
            return self._no_lolama()
        kind = ResourceError if response.status in (429, 503) else UsageError
        return kind(OPTION, f"{self.address} refuses: {told!s:.300}")

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken_off(error) from None
        finally:
            if not response.isclosed():
                self.close()

    def _object(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._no_lolama()
        return found

    def _no_answer(self, error: Exception) -> NetworkError:
        if isinstance(error, http.client.HTTPException):
            return self._no_lolama()
        why = getattr(error, "strerror", None) or error or "no reason given"
        reason = f"{self.address} does not answer: {why}"
        return NetworkError(OPTION, reason, f"start it with lolama serve, {_OTHERWISE}")

    def _no_lolama(self) -> NetworkError:
        reason = f"{self.address} answers, and is no lolama serve that commands can ask"
        return NetworkError(OPTION, reason, f"give the address of one, {_OTHERWISE}")

    def _broken_off(self, error: Exception | None) -> NetworkError:
        self.close()
        why = "" if error is None else f": {error}"
        reason = f"{self.address} broke off its answer{why:.200}"
        return NetworkError(OPTION, reason, "see its log")


def failure(told: Any, address: str) -> LolamaError:
    """The error that the server at ``address`` told, as if it had come up here."""
    if not isinstance(told, dict):
        return NetworkError(OPTION, f"{address} tells an error that makes no sense", "see its log")
    subject, reason, remedy = (str(told.get(part, "")) for part in ("subject", "reason", "remedy"))
    kind = getattr(errors, str(told.get("kind")), None)
    made: LolamaError
    if isinstance(kind, type) and issubclass(kind, LolamaError):
        made = kind(subject, reason, remedy)
    else:
        made = ServerFailure(OPTION, f"{address} answers: {reason}", remedy)
        made.kind = str(told.get("kind", ""))
        again = told.get("retry_after")
        made.retry_after = float(again) if isinstance(again, int | float) else None
    code = told.get("exit_code")
    made.exit_code = code if isinstance(code, int) else made.exit_code
    return made
