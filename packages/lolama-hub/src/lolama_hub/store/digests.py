"""What a file holds, as a digest; remembered for as long as the file is what it was.

Size and time of modification do not tell that: what replaces a file may have both of it, out of an archive
for example. The time of change is the one that nobody can set.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from lolama_core.protocols.errors import ModelError, shortage
from lolama_core.protocols.types import JSON
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
    # It appears in one step, so a reader finds all of it or nothing.
    partial = memory.with_name(f".{memory.name}.{secrets.token_hex(8)}")
    try:
        partial.write_text(digest, encoding="ascii")
        os.replace(partial, memory)
    except OSError:
        partial.unlink(missing_ok=True)  # it is hashed again next time
    return digest
