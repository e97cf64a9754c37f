"""Locks between processes, which end with their holder however it ends."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lolama_core.protocols.file_lock import lock_open_file
from lolama_hub.store.place import unusable

_POLL = 0.05
_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for whoever holds it. The file is gone afterwards.

    Args:
        path: Its folder must exist.
    """
    handle = try_lock(path)
    if handle is None:
        _log.warning("waiting for another process that uses %s", path)
        while handle is None:
            # A blocking lock is no choice: a file system over a network may not let go of it.
            time.sleep(_POLL)
            handle = try_lock(path)
    try:
        yield
    finally:
        os.unlink(path)
        os.close(handle)


def try_lock(path: Path) -> int | None:
    """The handle of the locked file, or None if another holds it.

    Raises:
        ResourceError: if there can be no such file.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise unusable(path, error) from None
        # The last holder may have removed the name between our opening and our locking.
        with suppress(FileNotFoundError):
            return handle if lock_open_file(handle, path) else None
