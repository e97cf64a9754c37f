"""What was found out about files, so that it need not be found out again while they are the same files.

Hashing a model's files and looking through its weights takes seconds. Both are noted in lolama's store under
what tells a file from every other, and from itself after a change: device, number, size, times of change.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lolama_core.protocols.errors import ResourceError
from lolama_core.protocols.types import JSON, ModelFiles

# Smaller ones are looked through sooner than a note is found, and need no store.
_WORTH_A_NOTE = 64 * 2**20


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        ResourceError: if there can be no store.
    """
    memory = _place("hashes", "sha256", _identity(path))
    try:
        known = memory.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    except (OSError, UnicodeDecodeError):
        pass
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # In one step, so that whoever reads it meanwhile finds all of it or nothing.
    partial = memory.with_name(f".{memory.name}.{secrets.token_hex(8)}")
    try:
        partial.write_text(digest, encoding="ascii")
        os.replace(partial, memory)
    except OSError:
        partial.unlink(missing_ok=True)  # it is hashed again next time
    return digest


@contextmanager
def looked_through(files: ModelFiles) -> Iterator[ModelFiles]:
    """The files to load, marked as finite if an earlier load found them so.

    If none did, the load inside the block looks, and is remembered if it ends well.

    Example:
        >>> with looked_through(files) as files:
        ...     model = load_model(files, families)
    """
    memory = _note_of(files)
    if memory is not None and memory.exists():
        yield replace(files, finite=True)
        return
    yield files
    if memory is not None and memory == _note_of(files):  # what was loaded is what is there
        with suppress(OSError):
            memory.touch()


def _note_of(files: ModelFiles) -> Path | None:
    """Where it would be noted that weights are finite; None where that is not worth it, or not possible."""
    keys: dict[Path, list[str]] = defaultdict(list)
    for location in files.tensors.values():
        keys[location.path].append(location.key)
    try:
        if sum(path.stat().st_size for path in keys) < _WORTH_A_NOTE:
            return None
        # The keys too: tensors that the model does not use were not looked through.
        identity: list[JSON] = [
            [*_identity(path), *sorted(keys[path])] for path in sorted(keys, key=str)
        ]
        # Under the folder's name, which of a fetched model is its commit: `lolama rm` and `gc` go by it.
        return _place("finite", next(iter(keys)).parent.name, identity)
    except (OSError, ResourceError):  # a missing file is for the load to report
        return None


def _place(kind: str, label: str, identity: JSON) -> Path:
    from lolama_hub import Store

    return Store().place(kind, label, identity)


def _identity(path: Path) -> list[JSON]:
    status = path.stat()
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]
