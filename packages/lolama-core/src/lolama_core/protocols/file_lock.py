"""A lock between processes, which ends with its holder however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_open_file(handle: int, path: Path) -> bool:
    """Lock what is open as ``handle``; False if another process has it locked.

    The handle stays open if it is locked now, and is closed otherwise.

    Args:
        handle: The open file or directory.
        path: How it was called when it was opened.

    Raises:
        FileNotFoundError: if it is not called so any more: whoever held the lock has removed it.
    """
    locked = False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.stat(path)):
            raise FileNotFoundError(path)
        locked = True
    except BlockingIOError:
        pass
    finally:
        if not locked:
            os.close(handle)
    return locked
