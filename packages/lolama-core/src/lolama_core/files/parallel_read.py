"""Bytes of a file into memory, by several threads where there are many."""

from __future__ import annotations

import io
import os

from lolama_core.files.untrusted import DOWNLOAD_AGAIN
from lolama_core.protocols.errors import ModelError

_READ_BYTES = 2 * 2**20  # one system call's worth, and one huge page's
_READERS = min(4, os.cpu_count() or 1)


def read_into(file: io.FileIO, offset: int, target: memoryview, subject: str) -> None:
    """Fill ``target`` with the bytes of the file from ``offset`` on.

    Much is read by several threads: most of the time goes into making the pages, each of which waits for
    the system.

    Raises:
        ModelError: naming ``subject``, if the file ends too early.
    """

    def read(start: int) -> None:
        part = target[start : start + _READ_BYTES]
        while len(part):
            count = os.preadv(file.fileno(), [part], offset + start)
            if not count:
                missing = offset + len(target) - os.fstat(file.fileno()).st_size
                raise ModelError(subject, f"ends {missing} bytes too early", DOWNLOAD_AGAIN)
            part, start = part[count:], start + count

    starts = range(0, len(target), _READ_BYTES)
    if len(starts) < 2:
        for start in starts:
            read(start)
        return
    from concurrent.futures import ThreadPoolExecutor  # here, since headers never get so far

    with ThreadPoolExecutor(_READERS, "lolama-read") as readers:
        try:
            for _ in readers.map(read, starts):
                pass
        except BaseException:
            readers.shutdown(cancel_futures=True)  # Ctrl-C waits for what has begun, no more
            raise
