"""Finds the kernels that installed packages provide."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from lolama_core.protocols.errors import NotAvailableError, shortage


def installed_kernels(group: str) -> list[Any]:
    """One of each kernel that is declared as an entry point of ``group``.

    Raises:
        NotAvailableError: naming the package, if one of them cannot be loaded: models would run without it,
            several times slower, and nobody would know.
    """
    return [_load(entry) for entry in entry_points(group=group)]


def _load(entry: Any) -> Any:
    try:
        return entry.load()()
    except Exception as error:  # the code of others can fail in any way
        found = shortage(error, f"the kernel {entry.name!r}")
        if found is not None:
            raise found from error
        package = entry.dist.name if entry.dist is not None else entry.module
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise NotAvailableError(
            package,
            f"its kernel {entry.name!r} cannot be loaded ({reason})",
            f"`pip install --force-reinstall {package}`, or uninstall it to run without",
        ) from error
