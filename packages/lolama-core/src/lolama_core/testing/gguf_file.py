"""GGUF files by their bytes, so that tests can also make those that no library would write."""

from __future__ import annotations

import struct
from collections.abc import Sequence

UINT16, UINT32, INT32, TEXT, ARRAY = 2, 4, 5, 8, 9
F32, Q8_0 = 0, 8


def text(value: str | bytes) -> bytes:
    """A text, with its length in front."""
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    """A key with its value.

    Example:
        >>> key("general.architecture", TEXT, text("llama"))[:8]
        b'\\x14\\x00\\x00\\x00\\x00\\x00\\x00\\x00'
    """
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, items: bytes) -> bytes:
    """The value of a key of type `ARRAY`."""
    return struct.pack("<IQ", kind, count) + items


def tensor(name: str | bytes, kind: int, shape: Sequence[int], offset: int = 0) -> bytes:
    """What a header says of a tensor; ``shape`` is outermost first, as everywhere but in the file."""
    sizes = struct.pack(f"<{len(shape)}Q", *reversed(shape))
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file.

    Args:
        keys: See `key`.
        tensors: See `tensor`.
        data: What follows the header.
        version: The version of the format.
        counts: The numbers of tensors and of keys that the header claims, if not the true ones.
        alignment: The data begin at a multiple of it.
    """
    claimed = counts or (len(tensors), len(keys))
    header = b"GGUF" + struct.pack("<IQQ", version, *claimed) + b"".join([*keys, *tensors])
    return header + bytes(-len(header) % alignment) + data


def split_keys(number: int, count: int, tensors: int) -> list[bytes]:
    """The keys of a part of a model: ``number`` counts from 0, ``tensors`` are those of all parts."""
    return [
        key("split.no", UINT16, struct.pack("<H", number)),
        key("split.count", UINT16, struct.pack("<H", count)),
        key("split.tensors.count", INT32, struct.pack("<i", tensors)),
    ]
