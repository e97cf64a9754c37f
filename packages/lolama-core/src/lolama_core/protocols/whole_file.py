"""Files that appear in one step, so that a reader finds all of one or nothing."""

from __future__ import annotations

import fcntl
import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SECONDS_TO_LOCK = 60


def write_whole(path: Path, content: bytes, *, replace: bool = True, mode: int = 0o666) -> None:
    """Write a small file, whole or not at all; arguments and errors as for `whole_file`.

    Args:
        content: All of it.
    """
    with whole_file(path, replace=replace, mode=mode) as file:
        write_all(file, memoryview(content))


def write_all(file: io.FileIO, content: memoryview) -> None:
    """Write bytes to an unbuffered file. One call to the system may write only part of what it is given.

    Raises:
        OSError: as the system says.
    """
    while content:
        content = content[file.write(content) :]


@contextmanager
def whole_file(path: Path, *, replace: bool = True, mode: int = 0o666) -> Iterator[io.FileIO]:
    """A file that has its name once the block has ended well, and is forced to the disk then.

    Args:
        path: Its folder must exist.
        replace: A file that has this name gives way.
        mode: Who may read and write it; the process may allow less (``umask``).

    Yields:
        The empty file, unbuffered, to read and write.

    Raises:
        OSError: as the system says; `FileExistsError` if the name is taken, unless ``replace``.
    """
    import secrets

    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with io.FileIO(handle, "r+b") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield file
            os.fsync(handle)
            if replace:
                os.replace(beside, path)
            else:
                _move_to_new(beside, path)
    finally:
        with suppress(OSError):  # it has its name, or there was never one
            beside.unlink()


class _Tried(Exception):
    """Ends the block of a file that is not to appear."""


def try_to_begin(path: Path) -> None:
    """Begin a file beside ``path``, as `whole_file` does, and remove it: an error of the end comes now.

    Raises:
        OSError: if there can be none.
    """
    with suppress(_Tried), whole_file(path, mode=0o600):
        raise _Tried


def remove_unfinished(path: Path) -> None:
    """Remove what killed writers of a file left beside it. Those that are at work hold a lock.

    Raises:
        OSError: if its folder cannot be read.
    """
    pattern = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{16}")
    for entry in list(os.scandir(path.parent)):
        if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with suppress(OSError), open(entry.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A writer may not have come to its lock yet.
                if time.time() - os.fstat(file.fileno()).st_mtime > _SECONDS_TO_LOCK:
                    os.unlink(entry.path)


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
