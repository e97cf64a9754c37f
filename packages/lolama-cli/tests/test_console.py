"""What is shown of text that nobody vouches for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lolama_cli.console import visible


def test_control_characters_are_spelled_out() -> None:
    assert visible("\x1b[1m\x07\x7f\x9b\r\n\té✓") == "^[[1m^G^?\\x9b^M^J^Ié✓"
    assert visible("a\n\tb\r", keep="\n\t") == "a\n\tb^M"


@given(st.text())
def test_nothing_else_is_touched(text: str) -> None:
    shown = visible(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)
    if text.isprintable():
        assert shown == text
