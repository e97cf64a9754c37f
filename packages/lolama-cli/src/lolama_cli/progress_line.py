"""How far a command is, on one line of the terminal: what it does, the share that is done, the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TextIO

from lolama_cli.word_wrap import columns_of

if TYPE_CHECKING:
    from lolama.steps import Steps

_BETWEEN = 0.1  # seconds


@contextmanager
def progress_line(text: str) -> Iterator[Steps | None]:
    """A function that draws what it is told on standard error; None where that is no terminal.

    Nothing is drawn before the first step, and nothing is left at the end of the block.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    line = ProgressLine(text, sys.stderr)
    try:
        yield line
    finally:
        line.erase()


class ProgressLine:
    """`NamedSteps` that draw ``reading the text: 34 %, 8 s left``.

    Args:
        text: What is being done.
        stream: A terminal.
        clock: Seconds.
    """

    def __init__(
        self, text: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._text, self._stream, self._clock = text, stream, clock
        self._began = self._drawn = -1.0

    def __call__(self, done: int, count: int) -> None:
        """Draw the number of steps that are done, unless the line was drawn a moment ago."""
        self._update(self._text, done, count)

    def named(self, text: str) -> Steps:
        """The same line, with another text as long as this is told of steps."""
        return partial(self._update, text)

    def _update(self, text: str, done: int, count: int) -> None:
        now = self._clock()
        if done == 0:
            self._began, self._drawn = now, -1.0
        elif now - self._drawn < _BETWEEN:
            return
        self._drawn = now
        line = f"{text}: {done / max(count, 1):.0%}".replace("%", " %")
        if done:
            line += f", {duration((now - self._began) / done * (count - done))} left"
        columns = columns_of(self._stream)
        # The line ends before the edge: else what a terminal shows of Ctrl-C would begin a line of its own.
        self._write(f"\r{line[: columns - 3] if columns > 3 else line}\x1b[K")

    def erase(self) -> None:
        """Leave the line as if nothing had been there."""
        if self._drawn >= 0:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def duration(seconds: float) -> str:
    """``8 s``, ``3 min``, ``2 h 5 min``: no more exact than an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
