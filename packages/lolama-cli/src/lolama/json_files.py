"""Small JSON files that anyone may have written."""

from __future__ import annotations

from pathlib import Path

from lolama_core import FileCheckpointIO
from lolama_core.protocols.types import JSON


def read_json(path: Path) -> dict[str, JSON]:
    """A JSON object of at most 16 MiB, read as strictly as a model's configuration.

    Raises:
        ModelError: if the file is missing, no regular file, not UTF-8, or anything but one object without
            duplicate keys, NaN, half surrogate pairs, endless digits and deep nesting.
    """
    return FileCheckpointIO().read_json(path)
