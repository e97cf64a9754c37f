"""Listening: the application under uvicorn, until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from starlette.applications import Starlette

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.serving import ModelHost
from lolama_serve.app import make_app
from lolama_serve.connections import Connection
from lolama_serve.options import ServeOptions
from lolama_serve.server import Server

_PATIENCE = 2.0
"""Seconds that answers have to end in by themselves, once the server is told to stop."""

_GRACE = 2
"""Seconds after that until connections are cut."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: ModelHost, options: ServeOptions, *, listening: Callable[[str], None] = print
) -> None:
    """Serve until SIGINT or SIGTERM comes; then every answer that runs gets an end.

    Args:
        host: Where models come from.
        options: What to serve, and how.
        listening: Told each address, once requests can come.

    Raises:
        UsageError: for an address that cannot be listened on, or one that others reach and that has no key;
            for a model that is larger than all may be.
        LolamaError: if a model that the options name cannot be loaded.
    """
    addresses = [address.strip().strip("[]") for address in options.host.split(",")]
    open_ones = [address for address in addresses if address not in _LOOPBACK]
    if open_ones and not options.api_keys:
        reason = f"{open_ones[0]} can be reached from other machines, and there is no key"
        raise UsageError("host", reason, "give an `api_key`")
    _check_memory(host, options)
    app = make_app(host, options)
    own: Server = app.state.server
    shown = [f"[{address}]" if ":" in address else address for address in addresses]
    port = options.port

    def started() -> None:
        for one in shown:
            listening(f"http://{one}:{port}")

    with ExitStack() as held:
        sockets: list[socket.socket] = []
        for address in addresses:
            sockets.append(held.enter_context(_bound(address, port, only=len(addresses) == 1)))
            port = sockets[0].getsockname()[1]
        UntilSignal(make_config(app), own, started).run(sockets=sockets)
    if own.failure is not None:
        raise own.failure


def _check_memory(host: ModelHost, options: ServeOptions) -> None:
    """Refuse models that could never be loaded."""
    most = options.model_bytes
    for name in options.models:
        size = host.find(name).bytes
        if most is not None and size > most:
            reason = f"allows {most:,} bytes, and {name} takes {size:,}"
            raise UsageError("model_bytes", reason, "allow more, or leave the model out")


def make_config(app: Starlette) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        timeout_keep_alive=75,
    )


class UntilSignal(uvicorn.Server):
    """uvicorn's server, which gives answers an end before it stops.

    Args:
        config: uvicorn's settings.
        own: The parts of lolama's server.
        started: Called once requests can come.
    """

    def __init__(self, config: uvicorn.Config, own: Server, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._own, self._told = own, started
        own.stop = self._stop

    def _stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept requests, and tell so."""
        await super().startup(sockets)
        if self.started:
            self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more requests, wait for those that run, and end those that take too long."""
        for server in self.servers:
            server.close()
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while self._own.pool.waiting and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        self._own.pool.break_off()
        self._own.generator.break_off()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal. It has done its work then: unlike uvicorn's, the process is not killed by it."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bound(address: str, port: int, *, only: bool) -> socket.socket:
    """A socket that listens on that address, before anything is loaded.

    Args:
        address: An address or a name.
        port: The port; 0 for a free one.
        only: Whether there is no other one: ``::`` means IPv4, too, if nobody else has its port.

    Raises:
        UsageError: if there is none to be had.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as undone:
        try:
            made = undone.enter_context(socket.socket(family, socket.SOCK_STREAM))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and not only:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((address, port))
            made.listen()  # two servers can have one port until one of them listens
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            problem = f"{port} of {address} cannot be listened on ({reason})"
            raise UsageError("port", problem, "choose another one, or another address") from None
        undone.pop_all()
    return made
