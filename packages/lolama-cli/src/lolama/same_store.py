"""Whether a server and a command mean the same by the name of a model. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path


def store_identity() -> str:
    """Identifies this machine and its folder of fetched models, in hexadecimal digits.

    A container has a name of its own, and a folder that is mounted elsewhere another number.

    Raises:
        ResourceError: if there can be no store.
    """
    import lolama_hub

    root = lolama_hub.Store().root.resolve()
    try:
        found = root.stat()
        number = [found.st_dev, found.st_ino]
    except OSError:  # nothing was fetched yet
        number = []
    return hashlib.sha256(repr((platform.node(), str(root), number)).encode()).hexdigest()[:32]


def place_of(name: str) -> str | None:
    """The absolute path that a model's name is, without links; None if nothing is there."""
    try:
        path = Path(os.path.expanduser(name))
        return str(path.resolve()) if name and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # no possible name of a file
        return None
