"""The three standard streams: text that a user gave, text for the user, and everything else.

Standard output is the payload alone. Into a pipe or file it goes byte for byte, as UTF-8 whatever the
locale; on a terminal control characters are made visible, or a model (or whoever wrote its training text)
could move the cursor, retitle the window or fill the clipboard.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lolama_cli.word_wrap import WordWrap, columns_of, wrapped
from lolama_core.protocols.errors import LolamaError, ResourceError, UsageError
from lolama_core.protocols.utf8 import decode_utf8, is_unicode, without_mark

MAX_PROMPT_BYTES = 8_000_000
"""What is read of a prompt at most: several times the longest context of any model of these families."""

STANDARD_OUTPUT = "standard output"
"""What errors about it call it."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


GIVE_PROMPT = (
    'give the prompt as an argument, as in lolama generate "Once upon a time", or pipe it in'
)
"""What to do about a prompt that is missing."""


class ClosedPipeError(Exception):
    """Whoever read standard output has gone. Nobody is left to tell."""


def visible(text: str, *, keep: str = "") -> str:
    """``text`` with control characters spelled out (``^[``, ``\\x9b``), those in ``keep`` excepted."""

    def spell(match: re.Match[str]) -> str:
        character = match[0]
        if character in keep:
            return character
        code = ord(character)
        return f"\\x{code:02x}" if code >= 0x80 else f"^{chr(code ^ 0x40)}"

    return _CONTROL.sub(spell, text)


def note(text: str) -> None:
    """A line on standard error; on a terminal it may take several, and notes and errors have a style.

    A standard error that is closed or full is nobody's loss.
    """
    if sys.stderr is None:
        return
    lines = visible(text)
    try:
        if sys.stderr.isatty():
            lines = wrapped(_styled(lines), columns_of(sys.stderr))
        print(lines, file=sys.stderr, flush=True)
    except OSError:
        silence(2)


def has_colors() -> bool:
    """Whether a terminal may be sent styles: it has some, and nobody asked for none."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _styled(line: str) -> str:
    """An error's first word in red, a note faint."""
    if not has_colors():
        return line
    if line.startswith("error:"):
        return line.replace("error:", "\x1b[1;31merror:\x1b[0m", 1)
    return f"\x1b[2m{line}\x1b[0m" if line.startswith("note:") else line


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show ``text``, if there is any, on a terminal for as long as the block runs; elsewhere nothing."""
    stream = sys.stderr
    if not text or stream is None or not stream.isatty():
        yield
        return
    stream.write(f"{visible(text)} …")
    stream.flush()
    try:
        yield
    finally:
        stream.write("\r\x1b[K")
        stream.flush()


def silence(descriptor: int) -> None:
    """Send a stream nowhere from now on, or the interpreter complains about it on its way out."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, descriptor)
    os.close(sink)


def stdout_failed(error: OSError) -> Exception:
    """What to raise for a write to standard output that failed."""
    silence(1)
    if isinstance(error, BrokenPipeError):
        return ClosedPipeError()
    return ResourceError(
        STANDARD_OUTPUT,
        f"cannot be written: {error.strerror or error}",
        "free some space or send it elsewhere",
    )


class Output:
    """Writes payload to standard output, each piece at once.

    Raises:
        LolamaError: from every method, if standard output cannot be written.
        ClosedPipeError: if nobody reads it any more.
    """

    def __init__(self) -> None:
        if sys.stdout is None:
            raise closed_stdout()
        self.is_terminal = sys.stdout.isatty()
        self._encoding = sys.stdout.encoding if self.is_terminal else "utf-8"
        self._at_line_start = True
        self._in_thought = False
        self._wrap = WordWrap(lambda: columns_of(sys.stdout))

    def write(self, text: str) -> None:
        """Write ``text`` and flush."""
        self.write_styled(visible(text, keep="\n\t") if self.is_terminal else text)

    def write_styled(self, text: str) -> None:
        """Write ``text`` as it is and flush: control characters in it are the program's own."""
        if not text:
            return
        self._at_line_start = text.endswith("\n")
        try:
            sys.stdout.buffer.write(text.encode(self._encoding, errors="replace"))
            sys.stdout.buffer.flush()
        except OSError as error:
            raise stdout_failed(error) from None

    def stream(self, text: str) -> None:
        """Write the next piece of a text; on a terminal its lines break between words."""
        if self.is_terminal:
            self.stream_styled(visible(text, keep="\n\t"))
        else:
            self.write(text)

    def stream_styled(self, text: str) -> None:
        """`stream` for a terminal: control characters in it are the program's own, and only set styles."""
        self.write_styled(self._wrap.push(text))

    def thought(self, text: str) -> None:
        """Write the next piece of what a model thinks before it replies: faint, and on a terminal alone."""
        if not self.is_terminal or not text:
            return
        faint = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        if not self._in_thought and not faint:
            self.stream("thinking: ")
        self._in_thought = True
        text = visible(text, keep="\n\t")
        self.stream_styled(f"\x1b[2m{text}\x1b[0m" if faint else text)

    def end_thought(self) -> None:
        """Leave a line free between a thought, if there was one, and the reply."""
        if self._in_thought:
            self.stream_styled("\n\n")
        self._in_thought = False

    def end_line(self) -> None:
        """On a terminal, begin a new line unless at the start of one; elsewhere add nothing."""
        self._in_thought = False
        self.write_styled(self._wrap.finish())
        if self.is_terminal and not self._at_line_start:
            self.write("\n")


def closed_stdout() -> LolamaError:
    """The error for a standard output that was closed from the beginning."""
    return UsageError(STANDARD_OUTPUT, "is closed", "send it to a file or a pipe")


def checked_text(argument: str, subject: str) -> str:
    """An argument of the command line that is text.

    Raises:
        UsageError: if it is empty, too long for any model, or not text.
    """
    if_empty = "leave it out" if subject.startswith("-") else GIVE_PROMPT
    return checked(_readable(argument, subject), subject, if_empty)


def _readable(argument: str, subject: str) -> str:
    """Arguments are bytes; Python hands on those that the locale cannot decode as lone surrogates."""
    if is_unicode(argument):
        return without_mark(argument)  # "$(cat FILE)" brings the mark of a file along
    try:
        return decode_utf8(os.fsencode(argument))  # UTF-8 all the same, in an ASCII locale
    except ValueError as error:
        raise UsageError(subject, str(error), "set a UTF-8 locale") from None


def checked(text: str, subject: str, if_empty: str = GIVE_PROMPT) -> str:
    """``text``, if a model can be given it; otherwise as `checked_text`; ``if_empty`` is that remedy."""
    if not text:
        raise UsageError(subject, "is empty", if_empty)
    if "\0" in text:
        reason = f"holds a NUL character at offset {text.index(chr(0))}, so it is not text"
        raise UsageError(subject, reason, "give text")
    if len(text) > MAX_PROMPT_BYTES:
        raise too_long(f"{len(text):,}", subject)
    return text


def too_long(count: str, subject: str = "prompt") -> UsageError:
    """The error for a text of more than `MAX_PROMPT_BYTES`, of which there are ``count``."""
    return UsageError(
        subject,
        f"has {count} bytes, which no model can attend over",
        "shorten it",
    )
