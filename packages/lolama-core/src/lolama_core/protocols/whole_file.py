"""Small files that appear in one step, so that a reader finds all of one or nothing."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes, *, replace: bool = True, mode: int = 0o666) -> None:
    """Write a file, whole or not at all, and force it to the disk.

    Args:
        path: Its folder must exist.
        content: All of it.
        replace: A file that has this name gives way.
        mode: Who may read and write it; the process may allow less (``umask``).

    Raises:
        OSError: as the system says; `FileExistsError` if the name is taken, unless ``replace``.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        if replace:
            os.replace(beside, path)
        else:
            _move_to_new(beside, path)
    finally:
        with suppress(OSError):  # it has its name, or there was never one
            beside.unlink()


def _move_to_new(beside: Path, path: Path) -> None:
    """Give a file its name, unless something has that: a rename would replace it without asking."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.replace(beside, path)
