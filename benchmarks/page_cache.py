"""What the system holds in memory of files, to be forgotten before a measurement that is to read the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def drop_from_memory(folders: Iterable[str | Path]) -> None:
    """Have the system forget what it holds of every file in folders and theirs, so that it is read again.

    Linux alone can. What is yet to be written, or is mapped by some process, stays.
    """
    for folder in folders:
        # One by one: whoever measures the memory of its children must not take up much itself.
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                if os.path.isfile(path):
                    _drop(path)


def _drop(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
