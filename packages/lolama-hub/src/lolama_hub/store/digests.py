"""What a file holds, as a digest; remembered for as long as the file is what it was.

Size and time of modification do not tell that: what replaces a file may have both of it, out of an archive
for example. The time of change is the one that nobody can set.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from lolama_core.protocols.errors import ModelError, shortage
from lolama_core.protocols.types import JSON
from lolama_core.protocols.whole_file import write_whole
from lolama_hub.store.place import Store


def file_identity(path: Path) -> list[JSON]:
    """What tells a file from every other, and from itself once it was changed.

    Raises:
        OSError: if it is not there.
    """
    status = path.stat()
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]


def file_digest(path: Path, store: Store) -> str:
    """SHA-256 of a file, in hexadecimal digits, from ``store`` if it is remembered there.

    Raises:
        ModelError: if the file cannot be read.
        ResourceError: if there can be no store.
    """
    memory = store.place("hashes", "sha256", file_identity(path))
    try:
        known = memory.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    except (OSError, UnicodeDecodeError):
        pass
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        found = shortage(error, str(path))
        if found is not None:
            raise found from None
        reason = f"cannot be read: {error.strerror or error}"
        raise ModelError(str(path), reason, "check the file and its permissions") from None
    with suppress(OSError):  # it is hashed again next time
        write_whole(memory, digest.encode())
    return digest
