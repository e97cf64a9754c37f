"""Lines that break between words, also while a text is still coming.

A terminal breaks a line wherever its edge is. Here a word that would be cut begins the next line instead: a
line break takes the place of the spaces before it. Nothing else is changed, and nothing that was shown is
moved, so a word is held back until it has ended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TextIO

_TAB = 8
_ENDLESS = 1 << 30
_PARTS = re.compile(r"\x1b\[[0-9;]*m|\n|[ \t]+|[^ \t\n\x1b]+|\x1b")
_SPACES = re.compile(r"[ \t]+")
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_FENCE = re.compile(r"\s*(```+|~~~+)([^`]*)")
_CODE_INDENT = 4
_LIST_MARK = re.compile(r"[-*+]|\d+[.)]")


def columns_of(stream: TextIO) -> int:
    """Columns of the terminal that a stream leads to; 0 if that cannot be told."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def wrapped(text: str, columns: int) -> str:
    """``text`` for a terminal of that many columns."""
    wrap = WordWrap(lambda: columns)
    return wrap.push(text) + wrap.finish()


class WordWrap:
    """Turns pieces of text into pieces with line breaks.

    Only spaces and tabs become line breaks. Left to the terminal are words that are longer than a line, East
    Asian text (which may break at any character), and lines of code and of tables: between fences, indented
    like code, or beginning with a bar. Styles (SGR sequences) take no room. What is shown does not depend on
    how the text was cut.

    Args:
        columns: Tells the width of the terminal. It is asked at each word, since a window may change its
            size. 0 means no line breaks.

    Example:
        >>> wrap = WordWrap(lambda: 10)
        >>> wrap.push("one two th") + wrap.push("ree four") + wrap.finish()
        'one two\\nthree four'
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._gap = self._word = ""  # what is not shown yet: spaces, and what follows them
        self._fence = ""  # the mark that ends a block of code
        self._begin_line()

    def push(self, text: str) -> str:
        """Take more text; return what can be shown now."""
        shown = []
        for part in _PARTS.findall(text):
            if part == "\n":
                shown += [self._place(), "\n"]
                self._begin_line()
            elif part[0] in " \t":
                if _STYLE.sub("", self._word):
                    shown.append(self._place())
                self._gap += self._word + part  # the word is empty, or a style
                self._word = ""
            elif part[0] == "\x1b" or part.isascii():
                self._word += part
            else:
                for character in part:
                    self._word += character
                    if _width(character) > 1:
                        shown.append(self._place())
        if self._word and self._advance(0, self._word, _ENDLESS) > self._columns():
            shown.append(self._place())  # longer than any line, so there is nothing to wait for
        return "".join(shown)

    def finish(self) -> str:
        """End the text; return the rest."""
        rest = self._place()
        self._fence = ""
        self._begin_line()
        return rest

    def _begin_line(self) -> None:
        self._column = 0
        self._is_first = True  # whether no word of the line was shown yet
        self._as_it_is = False  # whether the line is left to the terminal
        self._opens_code = False  # whether the next line is code

    def _place(self) -> str:
        """What is held, with a line break in the place of the spaces if the word would be cut."""
        gap, word = self._gap, self._word
        self._gap = self._word = ""
        columns = self._columns()
        if self._is_first and _STYLE.sub("", word):
            self._look_at_head(_STYLE.sub("", gap + word))
            self._is_first = False
        elif self._opens_code and "`" in word:  # the line before code has none
            self._fence = ""
        elif gap and columns and not self._as_it_is:
            width = self._advance(0, word, _ENDLESS)
            end = self._advance(self._column, gap, _ENDLESS) + width
            if self._column and end > columns >= width:
                gap = _broken(gap) if width else _SPACES.sub("", gap)
                self._column = 0 if width else self._column
        self._column = self._advance(self._column, gap.rpartition("\n")[2] + word, columns)
        return gap + word

    def _look_at_head(self, head: str) -> None:
        """Decide by the first word of a line, and the spaces before it, whether the line is left as it is."""
        word = head.lstrip(" \t")
        fence = _FENCE.fullmatch(head)
        self._as_it_is = bool(self._fence or fence or word[0] == "|")
        indent = self._advance(0, head[: -len(word)], _ENDLESS)
        if indent >= _CODE_INDENT and not _LIST_MARK.fullmatch(word):
            self._as_it_is = True
        if fence is None:
            return
        if not self._fence:
            self._fence, self._opens_code = fence[1], True
        elif fence[1].startswith(self._fence) and not fence[2]:
            self._fence = ""

    def _advance(self, column: int, text: str, columns: int) -> int:
        """Where the cursor is once ``text``, without line breaks, was shown from ``column`` on."""
        columns = columns or _ENDLESS
        if column > columns:  # the window became narrower
            column %= columns
        for character in _STYLE.sub("", text):
            if character == "\t":
                column = min(column + _TAB - column % _TAB, columns - 1)
                continue
            width = _width(character)
            column = column + width if column + width <= columns else width
        return column


def _broken(gap: str) -> str:
    """The last of the spaces as a line break; styles between them stay where they are."""
    at = max(gap.rfind(" "), gap.rfind("\t"))
    before, after = gap[:at], gap[at + 1 :]
    return _SPACES.sub("", before) + "\n" + after


def _width(character: str) -> int:
    """Columns of a character: 0 for a combining one, 2 for a wide one."""
    if character.isascii():
        return 1
    from rich.cells import get_character_cell_size

    return get_character_cell_size(character)
