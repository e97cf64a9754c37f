"""Bytes → text, in the one way that every package uses."""

from __future__ import annotations

import codecs

import pytest

from lolama_core.protocols.utf8 import decode_utf8, is_unicode, without_mark


def test_row_106_the_mark_in_front_goes_and_nothing_else() -> None:
    assert decode_utf8("größe".encode()) == "größe"
    assert decode_utf8(codecs.BOM_UTF8 + "größe".encode()) == "größe"
    assert decode_utf8(codecs.BOM_UTF8) == decode_utf8(b"") == ""
    # The same character further on is one that someone wrote: a word joiner of old.
    assert decode_utf8(b"a" + codecs.BOM_UTF8) == without_mark("\ufeffa\ufeff") == "a\ufeff"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_row_106_other_marks_are_named(encoding: str) -> None:
    data = ("\ufeff" if encoding.endswith("be") else "") + "text"
    with pytest.raises(ValueError, match=f"^is not UTF-8: .* says {encoding[:6].upper()}$"):
        decode_utf8(data.encode(encoding))


def test_the_byte_that_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"^is not UTF-8: byte 0xe9 at offset 2$"):
        decode_utf8(b"ab\xe9")


@pytest.mark.parametrize(
    ("text", "right"), [("a", True), ("ä\U0001f600", True), ("a\ud83d", False), ("\udc80", False)]
)
def test_row_113_half_a_surrogate_pair_is_not_unicode(text: str, right: bool) -> None:
    assert is_unicode(text) is right
