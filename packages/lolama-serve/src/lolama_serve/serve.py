"""Listening: the application under uvicorn, until a signal ends it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import uvicorn

from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.serving import ModelHost
from lolama_serve.app import make_app
from lolama_serve.options import ServeOptions

GRACE = 3
"""Seconds that answers have to end in once the server is told to."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: ModelHost, options: ServeOptions, *, listening: Callable[[str], None] = print
) -> None:
    """Serve until SIGINT or SIGTERM comes.

    Args:
        host: Where models come from.
        options: What to serve, and how.
        listening: Told each address, once requests can come.

    Raises:
        UsageError: for an address that cannot be listened on, or one that others reach and that has no key.
    """
    addresses = [address.strip().strip("[]") for address in options.host.split(",")]
    open_ones = [address for address in addresses if address not in _LOOPBACK]
    if open_ones and not options.api_keys:
        reason = f"{open_ones[0]} can be reached from other machines, and there is no key"
        raise UsageError("host", reason, "give an `api_key`")
    sockets, port = [], options.port
    for address in addresses:
        sockets.append(_bound(address, port))
        port = port or sockets[0].getsockname()[1]
    config = uvicorn.Config(
        make_app(host, options),
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(config)
    for address in addresses:
        shown = f"[{address}]" if ":" in address else address
        listening(f"http://{shown}:{port}")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server.run(sockets=sockets)


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "choose another port or address"
        raise UsageError(f"{address}:{port}", f"cannot be listened on: {reason}", remedy) from None
    made.set_inheritable(True)
    return made
