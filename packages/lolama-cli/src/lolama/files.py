"""Small files: those that anyone may have written, and lolama's own."""

from __future__ import annotations

from pathlib import Path

from lolama_core import FileCheckpointIO
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import JSON
from lolama_hub import Store


def read_json(path: Path) -> dict[str, JSON]:
    """A JSON object of at most 16 MiB, read as strictly as a model's configuration.

    Raises:
        ModelError: if the file is missing, no regular file, not UTF-8, or anything but one object without
            duplicate keys, NaN, half surrogate pairs, endless digits and deep nesting.
    """
    return FileCheckpointIO().read_json(path)


def own_directory(name: str) -> Path:
    """A directory in lolama's store (``LOLAMA_HOME``), made if need be.

    Raises:
        ResourceError: if it cannot be made.
    """
    return Store().directory(name)


def expanded(path: str | Path) -> Path:
    """A path that a user gave, with ``~`` and ``~name`` spelled out.

    Raises:
        UsageError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            str(path), "begins with a user who is not here", "give the whole path"
        ) from None
