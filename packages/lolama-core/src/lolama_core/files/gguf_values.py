"""The numbers and texts of a GGUF header, one after another. Nothing here needs torch.

A header does not say how long it is, so a file is read as far as its values go, in pieces that grow. What a
file claims is held against its size and the limits first, and read afterwards.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from types import MappingProxyType

from lolama_core.files.parallel_read import read_into
from lolama_core.files.untrusted import DOWNLOAD_AGAIN
from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError

MAX_ITEMS = 4_000_000
"""The largest published vocabularies and their merges come to 1.3 million."""

UINT32, INT32, FLOAT32, BOOL, TEXT, ARRAY, UINT64 = range(4, 11)

_CODES: Mapping[int, str] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "B"}
    | {UINT64: "Q", 11: "q", 12: "d"}
)
"""What the format calls a type of numbers → what `struct` calls it."""

_FIRST_BYTES = 256 * 2**10
_LENGTH = struct.Struct("<Q")


class GGUFValues:
    """Reads values from the start of a file on.

    Args:
        file: The file.
        size: Its bytes.
        subject: What errors name as their place.
        max_bytes: How much of it is looked at, at most.
    """

    def __init__(self, file: io.FileIO, size: int, subject: str, max_bytes: int) -> None:
        self._file, self._size, self._max_bytes = file, size, max_bytes
        self._data = b""
        self._items = 0
        self.subject = subject
        self.position = 0

    def refused(self, reason: str) -> ModelError:
        """The error for a file that is damaged, or made so."""
        return ModelError(self.subject, reason, DOWNLOAD_AGAIN)

    def raw(self, count: int) -> bytes:
        """The next bytes."""
        end = self._have(count)
        return self._data[end - count : end]

    def number(self, kind: int) -> int:
        """The next whole number."""
        return int(self.numbers(kind, 1)[0])

    def numbers(self, kind: int, count: int) -> list[bool] | list[int] | list[float]:
        """The next numbers of one type, in one go."""
        code = _CODES[kind]
        size = count * struct.calcsize(f"<{code}")
        end = self._have(size)
        found = list(struct.unpack_from(f"<{count}{code}", self._data, end - size))
        if kind != BOOL:
            return found
        if max(found, default=0) > 1:
            raise self.refused("holds booleans that are neither 0 nor 1")
        return [one == 1 for one in found]

    def texts(self, count: int) -> list[str]:
        """The next texts. Each is looked at once, and all are decoded in one go."""
        self._check(self.position + count * _LENGTH.size)
        data, position, read = self._data, self.position, len(self._data)
        length_at = _LENGTH.unpack_from
        pieces = []
        for _ in range(count):
            start = position + 8
            if start > read:
                data, read = self._read_to(start)
            position = start + length_at(data, position)[0]
            if position > read:
                data, read = self._read_to(position)
            pieces.append(data[start:position])
        self.position = position
        try:
            return list(map(bytes.decode, pieces))
        except UnicodeDecodeError as error:
            raise self.refused(f"holds a text that is not UTF-8: {shown(error.object)}") from None

    def text(self) -> str:
        """The next text."""
        return self.texts(1)[0]

    def value(self, key: str, kind: int) -> GGUFValue:
        """The next value.

        Args:
            key: Its name, for messages.
            kind: The number of its type.
        """
        if kind == TEXT:
            return self.text()
        if kind in _CODES:
            return self.numbers(kind, 1)[0]
        if kind != ARRAY:
            raise self.refused(f"has a value of an unknown type, {kind}, for {shown(key)}")
        kind, count = self.number(UINT32), self.number(UINT64)
        if kind == ARRAY:
            raise self.refused(f"holds arrays within an array, for {shown(key)}")
        if kind != TEXT and kind not in _CODES:
            raise self.refused(f"has items of an unknown type, {kind}, for {shown(key)}")
        self._items += count
        if self._items > MAX_ITEMS:
            reason = f"holds more than {MAX_ITEMS:,} items in its arrays, the limit"
            raise ModelError(self.subject, reason)
        return self.texts(count) if kind == TEXT else self.numbers(kind, count)

    def _have(self, count: int) -> int:
        """Move on over ``count`` bytes, which are in memory then; where they end."""
        self.position += count
        if self.position > len(self._data):
            self._read_to(self.position)
        return self.position

    def _check(self, end: int) -> None:
        if end > self._size:
            reason = (
                f"is cut short: {self._size} bytes, and its header alone should fill {shown(end)}"
            )
            raise self.refused(reason)
        if end > self._max_bytes:
            reason = f"has a header of more than {self._max_bytes:,} bytes, the limit"
            raise ModelError(self.subject, reason)

    def _read_to(self, end: int) -> tuple[bytes, int]:
        """Have the file in memory up to ``end``, and twice as much as before; what there is of it now."""
        self._check(end)
        begin = len(self._data)
        stop = min(max(end, 2 * begin, _FIRST_BYTES), self._size, self._max_bytes)
        more = bytearray(stop - begin)
        read_into(self._file, begin, memoryview(more), self.subject)
        self._data += more
        return self._data, stop
