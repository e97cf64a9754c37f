"""Markdown as styles, while it streams: marks go, everything else stays, in order.

Nothing that was shown is ever shown again. So a mark that may open something (``**``, a backtick) holds back
what follows until its partner comes, the line ends, or too much is held; then all of it is shown, styled if
the partner came and as it was written if not. What is shown does not depend on how the text was cut.
"""

from __future__ import annotations

import re

_MOST_HELD = 400
_HEADING = re.compile(r"#{1,6} +(?=\S)")
_MAYBE_HEADING = re.compile(r"#{1,6} *")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_MAYBE_FENCE = re.compile(r" {0,3}(`{0,2}|~{0,2})")

BOLD, ITALIC, CODE, FAINT = "1", "3", "36", "2"


class MarkdownStream:
    """Turns pieces of Markdown into pieces with styles (SGR sequences).

    Marks that become styles: ``#`` to ``######`` before a heading, ``**`` and ``*`` around words, backticks
    around code. Fences stay, faint; what is between them is shown as it is. Lists, quotes and tables are
    readable as they are written, and stay so.

    Args:
        colors: Show code in a color, not only in weights and slants.

    Example:
        >>> stream = MarkdownStream()
        >>> stream.push("It is **b") + stream.push("old**.") + stream.finish()
        'It is \\x1b[1mbold\\x1b[0m.'
    """

    def __init__(self, *, colors: bool = True) -> None:
        self._code = CODE if colors else FAINT
        self._line = ""  # what is not shown yet
        self._at_start = True  # of a line
        self._before = "\n"  # the last character that was looked at
        self._style = ""  # of the whole line, for headings and code
        self._verbatim = False  # whether marks in the line mean nothing
        self._fence = ""  # the mark that ends a block of code

    def push(self, text: str) -> str:
        """Take more text; return what can be shown now."""
        shown = []
        for part in re.split(r"(?<=\n)", text):
            self._line += part
            shown.append(self._run(ended=self._line.endswith("\n")))
        return "".join(shown)

    def finish(self) -> str:
        """End the text, here or in the middle of something; return the rest."""
        rest = self._run(ended=True)
        self._at_start, self._before, self._fence = True, "\n", ""
        return rest

    def _run(self, *, ended: bool) -> str:
        shown = ""
        if self._at_start and self._line:
            if not ended and self._may_begin_something():
                return ""
            self._begin_line()
        while self._line:
            piece = self._next(ended=ended)
            if not piece:
                break
            shown += piece
        self._at_start = self._at_start or (ended and self._before == "\n")
        return shown

    # ------------------------------------------------------------------------------- what a line begins with

    def _may_begin_something(self) -> bool:
        """Whether more of the line may show that it is a heading or a fence, or what kind of fence."""
        if len(self._line) > _MOST_HELD:
            return False
        fence = _FENCE.match(self._line) or _MAYBE_FENCE.fullmatch(self._line)
        heading = not self._fence and _MAYBE_HEADING.fullmatch(self._line)
        return bool(fence or heading)

    def _begin_line(self) -> None:
        """Choose the line's style, and whether marks in it mean anything."""
        self._at_start = False
        head = self._line[: _MOST_HELD + 1]  # what is decided does not depend on how much is there
        fence = _FENCE.match(head)
        if self._fence:
            bare = head.strip()
            closing = fence is not None and bare.startswith(self._fence)
            closing = closing and not bare.strip(self._fence[0])
            self._style, self._verbatim = FAINT if closing else self._code, True
            if closing:
                self._fence = ""
            return
        self._verbatim = fence is not None and "`" not in head[fence.end() :]
        self._style = FAINT if self._verbatim else ""
        if self._verbatim:
            assert fence is not None
            self._fence = fence[1]
        heading = _HEADING.match(head)
        if heading is not None:
            self._line = self._line[heading.end() :]
            self._style = BOLD

    # ------------------------------------------------------------------------------------- what stands in it

    def _next(self, *, ended: bool) -> str:
        """The next part of the line, taken off it; nothing if more text is needed to tell."""
        if self._verbatim:
            return self._take(len(self._line), self._style)
        plain = re.match(r"[^*`]+", self._line)
        if plain is not None:
            return self._take(plain.end(), self._style)
        mark = re.match(r"\*+|`+", self._line)
        assert mark is not None
        if mark.end() == len(self._line) and not ended and mark.end() < _MOST_HELD:
            return ""  # the mark itself may go on
        if mark[0][0] == "*" and not self._can_open(mark.end()):
            return self._take(mark.end(), self._style)
        close = self._partner(mark[0], ended=ended)
        if close is None:
            if ended or len(self._line) > _MOST_HELD:
                return self._take(mark.end(), self._style)
            return ""
        return self._span(mark[0], close)

    def _can_open(self, end: int) -> bool:
        """Whether stars up to ``end`` stand before a word: ``2 * 3`` is no emphasis, nor is ``a*b``."""
        if end > 3 or self._before.isalnum() or end >= len(self._line):
            return False
        return not self._line[end].isspace()

    def _partner(self, mark: str, *, ended: bool) -> int | None:
        """Where the mark's partner stands, if it is there for certain."""
        for found in re.finditer(r"\*+|`+", self._line[len(mark) :]):
            start, end = len(mark) + found.start(), len(mark) + found.end()
            if end == len(self._line) and not ended:
                return None  # it may go on
            if found[0] != mark or end > _MOST_HELD:
                continue
            if mark[0] == "`":
                return start
            following = self._line[end : end + 1]
            if not self._line[start - 1].isspace() and not following.isalnum():
                return start
        return None

    def _span(self, mark: str, close: int) -> str:
        inside = self._line[len(mark) : close]
        styles = {"`": [self._code], "*": [[ITALIC], [BOLD], [BOLD, ITALIC]][min(len(mark), 3) - 1]}
        style = ";".join(filter(None, [self._style, *styles[mark[0]]]))
        self._line = self._line[close + len(mark) :]
        self._before = mark[0]
        return _styled(inside, style)

    def _take(self, count: int, style: str) -> str:
        taken, self._line = self._line[:count], self._line[count:]
        self._before = taken[-1]
        return _styled(taken, style)


def _styled(text: str, style: str) -> str:
    """``text`` in a style that ends with it. Line breaks stand outside: some terminals paint to the edge."""
    body = text.rstrip("\n")
    breaks = text[len(body) :]
    return f"\x1b[{style}m{body}\x1b[0m{breaks}" if style and body else text
