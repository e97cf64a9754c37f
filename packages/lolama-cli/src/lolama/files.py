"""Small files: those that anyone may have written, and lolama's own."""

from __future__ import annotations

import os
from pathlib import Path

from lolama_core import FileCheckpointIO
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import JSON
from lolama_hub import Store


def read_json(path: Path) -> dict[str, JSON]:
    """A JSON object of at most 16 MiB, read as strictly as a model's configuration.

    Raises:
        ModelError: if the file is missing, not a regular file, not UTF-8, or anything but one object without
            duplicate keys, NaN, half surrogate pairs, endless digits and deep nesting.
    """
    return FileCheckpointIO().read_json(path)


def own_directory(name: str) -> Path:
    """A directory in lolama's store (``LOLAMA_HOME``), made if need be.

    Raises:
        ResourceError: if it cannot be made.
    """
    return Store().directory(name)


def expanded(path: str | Path, name: str = "path") -> Path:
    """A path that a user gave, with ``~`` and ``~name`` spelled out.

    Args:
        path: The path.
        name: What the argument is called, for errors about a value that is no path.

    Raises:
        UsageError: if there is no such user, or if no file can be called so.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise UsageError(name, f"{shown(path)} is not a path", "give a text or a pathlib.Path")
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair that stands for no byte
        possible = False
    if not possible:
        raise UsageError(name, f"{str(path)!a:.60} is not a possible file name", "give another")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            str(path), "begins with a user who is not here", "give the whole path"
        ) from None


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file or directory, which is there."""
    try:
        return one.samefile(other)
    except OSError:
        return False
