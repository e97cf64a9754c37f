"""Messages from a pipe or file, one a line; and from a terminal without any editing of ours."""

from __future__ import annotations

import sys

from lolama_cli.chat.quotes import is_open, unquoted
from lolama_cli.console import MAX_PROMPT_BYTES
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.utf8 import decode_utf8

_PROMPT = "> "


class LineReader:
    """Reads messages line by line.

    Args:
        prompt: Show ``> `` on standard error before each, and let a message go on behind a line that ends in
            a backslash, or up to three closing quotes: for people. Without, a line is a message as it stands.
    """

    def __init__(self, *, prompt: bool) -> None:
        if sys.stdin is None:
            raise UsageError("standard input", "is closed", "pipe messages in, one a line")
        self._prompt = prompt
        self._number = 0

    def read(self) -> str:
        """The next message, without its line break.

        Raises:
            EOFError: after the last.
            UsageError: for a line that is no text, or too long; the next one can be read then.
        """
        if not self._prompt:
            return self._line("")
        message = self._line(_PROMPT)
        while message.endswith("\\") or is_open(message):
            message = message.removesuffix("\\") + "\n" + self._line(". ")
        return unquoted(message)

    def _line(self, prompt: str) -> str:
        if self._prompt and sys.stderr is not None:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        assert sys.stdin is not None
        try:
            data = sys.stdin.buffer.readline(MAX_PROMPT_BYTES + 1)
        except KeyboardInterrupt:
            self._end_prompt()
            raise
        self._number += 1
        if not data:
            self._end_prompt()
            raise EOFError
        if len(data) > MAX_PROMPT_BYTES:
            while data and not data.endswith(b"\n"):
                data = sys.stdin.buffer.readline(MAX_PROMPT_BYTES)
            raise self._refused(f"has more than {MAX_PROMPT_BYTES:,} bytes", "shorten it")
        try:
            text = decode_utf8(data)
        except ValueError as error:
            raise self._refused(str(error), "convert it") from None
        if "\0" in text:
            raise self._refused("holds a NUL character, so it is not text", "give text")
        return text.removesuffix("\n").removesuffix("\r")

    def _end_prompt(self) -> None:
        if self._prompt and sys.stderr is not None:
            sys.stderr.write("\n")

    def _refused(self, reason: str, remedy: str) -> UsageError:
        return UsageError(f"standard input, line {self._number}", reason, remedy)
