"""``--server``: an address, and the options that a server decides in the place of the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from lolama_core.protocols.errors import UsageError

OPTION = "--server"
HERE = "none"
"""In the place of an address: answer here, whatever the configuration says."""

KEY = "LOLAMA_API_KEY"
"""The variable with the server's key, which `lolama serve` reads, too."""

_OF_THE_SERVER = (
    *("quantize", "device", "dtype", "cache_dtype", "draft", "prompt_cache", "template"),
    "cache_memory",
)
"""Parameters that say how a model is loaded and run: whoever starts the server has decided that."""


def checked_address(text: str) -> str | None:
    """The address of a server; None for `HERE`.

    Raises:
        UsageError: for anything else.
    """
    if text == HERE:
        return None
    parts_of(text)
    return text


def parts_of(text: str) -> SplitResult:
    """The parts of an address.

    Raises:
        UsageError: if it is none.
    """
    remedy = "give one as http://127.0.0.1:8080, or none"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise UsageError(OPTION, f"{text!r:.80} is no address: {error}", remedy) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(OPTION, f"{text!r:.80} is no address of a server", remedy)
    if parts.username is not None or parts.query or parts.fragment:
        reason = "holds more than a host, a port and a path"
        raise UsageError(OPTION, reason, f"{remedy}; a key belongs into {KEY}")
    return parts


def server_of(context: Any, server: str, decided: Sequence[str] = _OF_THE_SERVER) -> str | None:
    """The address that answers a command; None for this process.

    Args:
        context: The command's.
        server: The option's value.
        decided: Parameters that do not go with a server.

    Raises:
        UsageError: for what is no address, or for an option on the command line that the server decides.
    """
    address = checked_address(server)
    if address is None:
        return None
    for name in decided:
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE":
            reason = f"is decided where {address} was started"
            remedy = f"leave it out, or give {OPTION} {HERE}"
            raise UsageError(f"--{name.replace('_', '-')}", reason, remedy)
    return address
