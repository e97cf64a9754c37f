"""Writing a GGUF file: its header first, then its tensors, in any order and part by part.

A file is the letters GGUF, a version, how many tensors and how many keys there are, the keys with their
values, the tensors' names, shapes, types and places, and the data. It appears when it is whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

from torch import Tensor

from lolama_core.files.checkpoint_writer import disk_error
from lolama_core.files.gguf_header import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC
from lolama_core.files.gguf_types import TYPES, row_bytes
from lolama_core.files.gguf_values import ARRAY, BOOL, FLOAT32, INT32, TEXT, UINT32
from lolama_core.files.tensor_file import byte_view
from lolama_core.protocols.checkpoint import GGUFValue, TensorHeader
from lolama_core.protocols.errors import UsageError, exists_already
from lolama_core.protocols.whole_file import remove_unfinished, whole_file, write_all

_VERSION = 3
_NUMBERS = {one.name: number for number, one in TYPES.items()}


def write_gguf(
    path: Path,
    metadata: Mapping[str, GGUFValue],
    tensors: Mapping[str, TensorHeader],
    parts: Iterable[tuple[str, int, Tensor]],
    *,
    replace: bool = False,
) -> None:
    """Write a GGUF file: all of it or nothing.

    Args:
        path: Its folder must exist.
        metadata: Key → value, in this order. Numbers are written in 32 bits.
        tensors: Name → type and shape.
        parts: Name of a tensor, which of its rows is the first one here, and rows: numbers of its type, or
            uint8, the bytes of blocks. Rows of all leading dimensions are counted together.
        replace: A file of this name gives way.

    Raises:
        UsageError: if the file exists, unless ``replace``, or cannot be made.
        ResourceError: if the disk is full, or read-only.

    Example:
        >>> write_gguf(path, {"general.architecture": "llama"}, headers, [("output.weight", 0, rows)])
    """
    path = Path(os.path.abspath(path))
    if "\0" in str(path):
        raise UsageError(repr(str(path)), "is no possible name of a file", "choose another name")
    if os.path.lexists(path) and not replace:
        raise exists_already(path)
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise UsageError(str(path), f"is {kind}", "choose another name")
    if not os.path.isdir(path.parent):
        raise UsageError(str(path), "the folder to write it in does not exist", "create it first")
    header, places = _header(metadata, tensors)
    try:
        remove_unfinished(path)
        with whole_file(path, replace=replace) as file:
            write_all(file, memoryview(header))
            left = sum(_size(one) for one in tensors.values())
            for name, first, rows in parts:
                one = tensors[name]
                rows = rows.contiguous()  # which has to live as long as the view of its memory
                file.seek(len(header) + places[name] + first * row_bytes(one.dtype, one.shape[-1]))
                write_all(file, byte_view(rows))
                left -= rows.nbytes
            assert left == 0, f"{left} bytes of tensors are missing"
            file.truncate(len(header) + _end(places, tensors))
    except OSError as error:
        raise disk_error(error, path) from error


def _header(
    metadata: Mapping[str, GGUFValue], tensors: Mapping[str, TensorHeader]
) -> tuple[bytes, dict[str, int]]:
    """All that stands before the data, and where each tensor's data begin, counted from those."""
    assert ALIGNMENT_KEY not in metadata
    found = [MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        found += [_text(key), _value(value)]
    places: dict[str, int] = {}
    position = 0
    for name, one in tensors.items():
        places[name] = position
        sizes = struct.pack(f"<I{len(one.shape)}Q", len(one.shape), *reversed(one.shape))
        found += [_text(name), sizes, struct.pack("<IQ", _NUMBERS[one.dtype], position)]
        position = _aligned(position + _size(one))
    header = b"".join(found)
    return header.ljust(_aligned(len(header)), b"\0"), places


def _value(value: GGUFValue) -> bytes:
    """The number of a value's type, and the value."""
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    if not isinstance(value, list):
        kind = UINT32 if type(value) is int else _kind(value)
        return struct.pack("<I", kind) + struct.pack(f"<{_CODES[kind]}", value)
    kind = _kind(value[0]) if value else INT32
    if kind == TEXT:
        items = b"".join(_text(str(one)) for one in value)
    else:
        items = struct.pack(f"<{len(value)}{_CODES[kind]}", *value)
    return struct.pack("<IIQ", ARRAY, kind, len(value)) + items


_CODES = {UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "?"}


def _kind(value: bool | int | float | str) -> int:
    return {bool: BOOL, int: INT32, float: FLOAT32, str: TEXT}[type(value)]


def _text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("<Q", len(content)) + content


def _size(one: TensorHeader) -> int:
    return prod(one.shape[:-1]) * row_bytes(one.dtype, one.shape[-1])


def _end(places: Mapping[str, int], tensors: Mapping[str, TensorHeader]) -> int:
    """Where the data end: readers take the padding of the last tensor for granted, too."""
    return max(
        (_aligned(place + _size(tensors[name])) for name, place in places.items()), default=0
    )


def _aligned(position: int) -> int:
    return -(-position // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
