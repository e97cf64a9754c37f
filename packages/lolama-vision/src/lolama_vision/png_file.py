"""What Pillow does not look at in a PNG: checksums of its pixels, and whether all of its rows are there.

Source: PNG specification, third edition (W3C 2025), sections 5 (chunks), 8 (interlacing) and 9 (filtering).
"""

from __future__ import annotations

import struct
import zlib

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Each pass of an interlaced picture: first column and row, and the steps to the next ones.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_PIECE = 1 << 20


def is_whole(data: bytes) -> bool:
    """Whether every checksum of a PNG is right and no row is missing."""
    try:
        return _has_all_rows(data)
    except (struct.error, zlib.error, KeyError):  # the end of the file, or of what can be inflated
        return False


def _has_all_rows(data: bytes) -> bool:
    missing = _bytes_of_rows(data)
    inflate = zlib.decompressobj()
    place, kind = 8, b""
    while kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + size)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            return False
        if kind == b"IDAT":
            while body and missing > 0:  # what more there is would be for nothing
                missing -= len(inflate.decompress(body, _PIECE))
                body = inflate.unconsumed_tail
        place += 12 + size
    return missing <= 0


def _bytes_of_rows(data: bytes) -> int:
    """How many bytes all rows take, with the number of its filter in front of each."""
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS[color]
    total = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0:
            total += max(rows, 0) * (1 + -(-columns * bits // 8))
    return total
