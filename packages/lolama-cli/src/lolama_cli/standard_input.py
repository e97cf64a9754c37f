"""Standard input: a prompt, what goes before a prompt, or a picture."""

from __future__ import annotations

import errno
import os
import select
import sys

from lolama_cli.console import GIVE_PROMPT, MAX_PROMPT_BYTES, checked, checked_text, note, too_long
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.utf8 import decode_utf8

NO_STDIN = "--no-stdin"
_SUBJECT = "standard input"
_PATIENCE = 1.0  # seconds until a silent pipe is mentioned


def read_prompt(argument: str | None, *, leave_stdin: bool = False) -> str:
    """The prompt: standard input, a blank line, and the argument; or the one of them that there is.

    With ``-`` the prompt is standard input. With an argument, standard input may also be a terminal, closed,
    unreadable or empty; then the argument is the prompt. One line break at the end of standard input is
    dropped: it ends the line that ``echo`` wrote.

    Args:
        argument: As it was given; None if there is none.
        leave_stdin: Do not touch standard input.

    Raises:
        UsageError: if there is no prompt, or it is empty, too long for any model, or not text.
    """
    if argument is None or argument == "-":
        if leave_stdin:
            raise UsageError(NO_STDIN, "leaves no prompt to read", "give one as an argument")
        if sys.stdin is None:
            raise UsageError("prompt", f"is missing, and {_SUBJECT} is closed", GIVE_PROMPT)
        if argument is None and sys.stdin.isatty():
            raise UsageError("prompt", "is missing", GIVE_PROMPT)
        silent = "note: waiting for the prompt on standard input"
        data = read_standard_input(MAX_PROMPT_BYTES, GIVE_PROMPT, silent=silent)
        return checked(_text(data), _SUBJECT)
    prompt = checked_text(argument, "prompt")
    if leave_stdin or sys.stdin is None or sys.stdin.isatty():
        return prompt
    given = _text(_read_if_readable())
    if not given:
        return prompt
    return checked(f"{checked(given, _SUBJECT)}\n\n{prompt}", "prompt")


def read_standard_input(most_bytes: int, remedy: str, *, silent: str = "") -> bytes:
    """All of standard input, or the first ``most_bytes + 1`` bytes if there are more.

    Args:
        most_bytes: How many bytes the caller takes.
        remedy: What to do if it cannot be read.
        silent: A note for a user who waits because nobody writes to the other end.

    Raises:
        UsageError: if it cannot be read.
    """
    try:
        return _read(most_bytes, silent)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise UsageError(_SUBJECT, reason, remedy) from None


def _read_if_readable() -> bytes:
    """What goes before a prompt. A descriptor that is open for writing alone, as nohup's, holds nothing."""
    silent = f"note: waiting for standard input, which goes before the prompt; {NO_STDIN} leaves it alone"
    try:
        return _read(MAX_PROMPT_BYTES, silent)
    except OSError as error:
        if error.errno == errno.EBADF:
            return b""
        reason = f"cannot be read: {error.strerror or error}"
        raise UsageError(_SUBJECT, reason, f"{NO_STDIN} leaves it alone") from None


def _read(most_bytes: int, silent: str) -> bytes:
    # Descriptor by descriptor, not through sys.stdin: a pipe that another program made non-blocking looks
    # to Python's buffer as if it had ended.
    descriptor = sys.stdin.fileno()
    if silent and not select.select([descriptor], [], [], _PATIENCE)[0]:
        note(silent)
    pieces, count = [], 0
    while count <= most_bytes:
        select.select([descriptor], [], [])
        try:
            piece = os.read(descriptor, min(most_bytes + 1 - count, 1 << 20))
        except BlockingIOError:  # another reader was faster
            continue
        if not piece:
            break
        pieces.append(piece)
        count += len(piece)
    return b"".join(pieces)


def _text(data: bytes) -> str:
    """``data`` as text, without the line break at its end.

    Raises:
        UsageError: if there is too much of it, or it is not UTF-8.
    """
    if len(data) > MAX_PROMPT_BYTES:
        raise too_long(f"more than {MAX_PROMPT_BYTES:,}")
    try:
        text = decode_utf8(data)
    except ValueError as error:
        raise UsageError(_SUBJECT, str(error), "convert it, for example with iconv") from None
    if text.endswith("\n"):
        text = text[:-1].removesuffix("\r")
    return text
