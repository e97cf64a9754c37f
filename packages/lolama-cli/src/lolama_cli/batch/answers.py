"""Where the answers of a batch go: standard output, or a file that a run that was ended can go on with.

An answer is one line, written at once and in the order of the prompts. So what a killed run leaves is a
beginning of the whole, with at most a piece of a line behind it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from lolama_cli.batch.prompts import Line
from lolama_cli.console import Output
from lolama_cli.schemas import BATCH
from lolama_core.protocols.errors import ResourceError, UsageError

_BEGINNING = BATCH.line({"line": 0}).partition("0")[0].encode()
"""What every answer begins with, up to the number of its line."""


class Answers(Protocol):
    """Takes answers in order.

    Attributes:
        on_terminal: Whether a terminal shows them.
    """

    on_terminal: bool

    def done(self, lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
        """The answers that are there already, each of the next of ``lines``."""
        ...

    def write(self, line: str) -> None:
        """Add one, which ends in a line break."""
        ...

    def close(self) -> None:
        """No more come."""
        ...


class StandardOutput:
    """Nothing is there already."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.on_terminal = output.is_terminal

    def done(self, lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
        """None."""
        return iter(())

    def write(self, line: str) -> None:
        """Add one."""
        self._output.write(line)

    def close(self) -> None:
        """Nothing to do."""


class AnswerFile:
    """A file of answers, held by this process alone until it is closed.

    Args:
        path: It may exist, if it holds answers to the same prompts.

    Raises:
        UsageError: if it cannot be opened, or another run writes to it.
        ResourceError: if its file system is read-only.
    """

    on_terminal = False

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if path.exists() and not path.is_file():
                raise self._refused("is not a regular file")
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._not_opened(error) from None
        self._file = os.fdopen(handle, "r+b", buffering=0)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UsageError(str(path), "is being written by another run", "wait for it") from None
        except OSError:
            pass  # a file system without locks

    def done(self, lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
        """The answers that are there, compared with the prompts; a piece of one behind them is cut off.

        Raises:
            UsageError: if one of them answers anything but the prompt in its place, or is none.
        """
        whole = number = 0
        with open(self._path, "rb") as file:
            while start := file.read(len(_BEGINNING)):
                number += 1
                if start != _BEGINNING[: len(start)]:  # also of a piece: it may be somebody's text
                    raise self._no_answer(number)
                data = start + file.readline()
                if not data.endswith(b"\n"):
                    break
                answer = self._parse(data, number)
                line = next(lines, None)
                if line is None:
                    raise self._refused(f"line {number} answers a prompt that is not there")
                if (answer.get("line"), answer.get("key")) != (line.number, line.key):
                    raise self._refused(f"line {number} answers another prompt, setting or model")
                whole += len(data)
                yield answer
        try:
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise self._failed(error) from None

    def write(self, line: str) -> None:
        """Add one answer.

        Raises:
            ResourceError: if there is no room for it.
        """
        data = line.encode("utf-8")
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Let go of the file, once what was written is on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from None
        finally:
            self._file.close()

    def _parse(self, data: bytes, number: int) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._no_answer(number)
        return answer

    def _no_answer(self, number: int) -> UsageError:
        return self._refused(f"exists, and its line {number} is no answer of a batch")

    def _refused(self, reason: str) -> UsageError:
        return UsageError(str(self._path), reason, "remove it, or give another --output")

    def _not_opened(self, error: OSError) -> UsageError | ResourceError:
        reason = f"cannot be written: {error.strerror}"
        if error.errno == errno.EROFS:
            return ResourceError(str(self._path), reason, "give another --output")
        missing = error.errno == errno.ENOENT and not self._path.parent.exists()
        remedy = "make the folder, or give another --output" if missing else "give another --output"
        return UsageError(str(self._path), reason, remedy)

    def _failed(self, error: OSError) -> ResourceError:
        reason = f"cannot be written: {error.strerror}"
        return ResourceError(str(self._path), reason, "free some space and run it again")
