"""Paths that the program changes: a pipe would be waited for, and a device replaced by a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lolama_core.protocols.errors import UsageError


def check_regular(path: Path, remedy: str) -> bool:
    """Whether something is there; a link is followed.

    Raises:
        UsageError: if it is a directory, pipe, socket or device.
        OSError: if that cannot be told.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(mode):
        raise UsageError(str(path), "is not a regular file", remedy)
    return True
