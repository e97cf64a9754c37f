"""What was found out about files, so that it need not be found out again while they are the same files.

Hashing a model's files and looking through its weights takes seconds. Both are noted in lolama's store under
what tells a file from every other, and from itself after a change: device, number, size, times of change.
"""

from __future__ import annotations

import hashlib
import json
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
        ModelError: if the file cannot be read.
        ResourceError: if there can be no store.
    """
    import lolama_hub

    return lolama_hub.file_digest(path, lolama_hub.Store())


def source_digest(files: ModelFiles) -> str:
    """SHA-256 over everything that a quantized model is made from: configuration, tokenizer, weights."""
    paths = sorted({location.path for location in files.tensors.values()}, key=str)
    hashes = {path: file_digest(path) for path in paths}
    table = {
        name: [hashes[location.path], location.key] for name, location in files.tensors.items()
    }
    tokenizer = files.tokenizer.tokenizer_json
    identity = {
        "config": files.config,
        "tensors": table,
        "tokenizer": None if tokenizer is None else file_digest(tokenizer),
        "chat_template": files.tokenizer.chat_template,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


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
    from lolama_hub import Store, file_identity

    try:
        if sum(path.stat().st_size for path in keys) < _WORTH_A_NOTE:
            return None
        # The keys too: tensors that the model does not use were not looked through.
        identity: list[JSON] = [
            [*file_identity(path), *sorted(keys[path])] for path in sorted(keys, key=str)
        ]
        # Under the folder's name, which of a fetched model is its commit: `lolama rm` and `gc` go by it.
        return Store().place("finite", next(iter(keys)).parent.name, identity)
    except (OSError, ResourceError):  # a missing file is for the load to report
        return None
