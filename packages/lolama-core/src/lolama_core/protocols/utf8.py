"""Bytes of a text that anyone may have written → the text; every package reads texts in this one way."""

from __future__ import annotations

import codecs

_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def decode_utf8(data: bytes | bytearray) -> str:
    """The text, without the byte order mark that editors and shells of Windows write in front of it.

    The mark is no character of the text: a prompt that begins with it would be another prompt.

    Raises:
        ValueError: for anything but UTF-8, with the rest of a sentence about it: what it is, or which byte.

    Example:
        >>> decode_utf8(bytes([0xEF, 0xBB, 0xBF, 0x68, 0x69]))
        'hi'
    """
    for mark, encoding in _OTHER_MARKS:
        if data.startswith(mark):
            raise ValueError(f"is not UTF-8: its byte order mark says {encoding}")
    try:
        return without_mark(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ValueError(f"is not UTF-8: {place}") from None


def without_mark(text: str) -> str:
    """A text that was decoded elsewhere, without a byte order mark in front of it."""
    return text.removeprefix("\ufeff")


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it. Half of a surrogate pair, which JSON can spell as ``\\ud800``, it cannot."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
