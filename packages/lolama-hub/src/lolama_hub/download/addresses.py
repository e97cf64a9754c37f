"""Addresses of the Hub, and those that it redirects to: checked before use, shown without passwords."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

import httpx2


def origin(url: str) -> str:
    """Scheme, host and port of an address: all of it that may be shown."""
    parts = _parse(url)
    if parts is None:
        return "an address that is none"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else f"{parts.hostname:.100}"
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def for_people(url: str) -> str:
    """An address without a user's name and password, to be opened in a browser."""
    return origin(url) + urlsplit(url).path


def join(base: str, location: str) -> str:
    """Where a response from ``base`` sends us to.

    Raises:
        httpx2.InvalidURL: if that is no web address.
    """
    try:
        target = urljoin(base, location)
    except ValueError as error:
        raise httpx2.InvalidURL(str(error)) from None
    if not is_web_address(target):
        raise httpx2.InvalidURL("not a web address")
    return target


def is_web_address(url: str) -> bool:
    """Whether a request can go there."""
    parts = _parse(url)
    return parts is not None and parts.scheme in ("http", "https")


def _parse(url: str) -> SplitResult | None:
    """The parts of an address that has a host; None for anything else."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # which the lookup of the host will do, too
        usable = parts.hostname and parts.port != 0
    except ValueError:  # brackets, ports, labels of more than 63 letters
        return None
    return parts if usable else None
