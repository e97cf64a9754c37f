"""The first bytes of a GGUF file, which say what it is before gigabytes of it are fetched."""

from __future__ import annotations

import io
import struct

from lolama_core.protocols.errors import ModelError
from lolama_hub.gguf.architectures import find_architecture

BEGINNING = 4096
"""Bytes that are enough."""

_COUNTS = 24  # bytes: letters, version, number of tensors, number of keys
_IS_TEXT = 8
_LONGEST_NAME = 1 << 12


def check_beginning(subject: str, content: bytes) -> None:
    """Refuse a file by its first bytes: its first key is its architecture, as llama.cpp writes it.

    A file that has another key there is not refused: its whole header tells.

    Raises:
        ModelError: if it is no GGUF file, or of an architecture that is not supported.
    """
    if not content.startswith(b"GGUF"):
        raise ModelError(subject, "is not a GGUF file", "choose another repository")
    values = io.BytesIO(content[_COUNTS:])
    key, kind = _text(values), values.read(4)
    if key == b"general.architecture" and kind == struct.pack("<I", _IS_TEXT):
        find_architecture(subject, _text(values).decode("utf-8", "replace"))


def _text(values: io.BytesIO) -> bytes:
    """The text that comes next, with its length in front, or what there is of it."""
    return values.read(min(int.from_bytes(values.read(8), "little"), _LONGEST_NAME))
