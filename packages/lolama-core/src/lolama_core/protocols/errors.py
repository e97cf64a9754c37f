"""Every error lolama raises on purpose: one tree, one message shape, one exit code each.

A message has three parts so that a reader can act on it: *where* (a file, a setting, a model), *why* it
was refused (with the value and the limit), and *what to do*. ``str(error)`` is ``where: why; what to do``,
on one line. The command line prints exactly that after ``error: ``; the Python API raises it.

Errors are part of the contract between packages, which is why they live with the protocols.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_MODEL = 3
EXIT_NETWORK = 4
EXIT_AUTHORISATION = 5
EXIT_RESOURCES = 6
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
EXIT_TERMINATED = 143


FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where nothing more can be written."""


class LolamaError(Exception):
    """Base of all deliberate errors.

    Args:
        subject: The file, setting or model that the error is about. A setting is called as in Python.
        reason: What is wrong with it: the value found and the limit or form expected.
        remedy: The next step; empty when there is none to give. A setting in it is Python code between
            backquotes, as in "try `dtype="float32"`"; a program puts its option in the place of that.
    """

    exit_code = 1

    def __init__(self, subject: str, reason: str, remedy: str = "") -> None:
        self.subject = subject
        self.reason = reason
        self.remedy = remedy
        message = f"{subject}: {reason}" + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(message.split()))

    def __reduce__(self) -> tuple[type[LolamaError], tuple[str, str, str]]:
        # The default pickles ``args`` (the joined message) and fails on the way back from a worker.
        return type(self), (self.subject, self.reason, self.remedy)


class UsageError(LolamaError, ValueError):
    """An argument or option that cannot be honored: a value out of range, a prompt that is too long."""

    exit_code = EXIT_USAGE


class ModelError(LolamaError):
    """Model files, a configuration, a tokenizer or an image that cannot be used, or a model gone wrong."""

    exit_code = EXIT_MODEL


class NetworkError(LolamaError):
    """The network or a server did not deliver."""

    exit_code = EXIT_NETWORK


class AuthorisationError(LolamaError):
    """A repository is missing, private or gated for this user."""

    exit_code = EXIT_AUTHORISATION


class ResourceError(LolamaError):
    """There is not enough disk or memory."""

    exit_code = EXIT_RESOURCES


class NotAvailableError(LolamaError, NotImplementedError):
    """Something that needs a package that is not installed, or that no package does."""

    exit_code = EXIT_USAGE


def exists_already(path: Path, instead: str = "remove it first") -> UsageError:
    """The error for a file or folder that is to be made, and is there.

    Args:
        path: It.
        instead: What else to do than to choose another name.
    """
    return UsageError(str(path), "exists already", f"choose another name, or {instead}")


def one_line(error: BaseException) -> str:
    """An error of somebody else's code as part of a line: its kind, and the first of what it says.

    Example:
        >>> one_line(ValueError("one\n\ttwo"))
        'ValueError: one two'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


_MEMORY = re.compile(
    r"cannot allocate memory|can't allocate memory|failed to map segment|bad_alloc|can't start new thread"
    r"|cannot enable executable stack",
    re.IGNORECASE,
)


def shortage(error: BaseException, subject: str) -> ResourceError | None:
    """What the system has run out of, if that is why ``error`` came: open files or memory; else None.

    Args:
        error: Any error. Libraries wrap what the system says, or say it in words.
        subject: What was about to be opened, loaded or made.
    """
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(error):
        whose = "system has" if number == errno.ENFILE else "process has"
        reason = f"cannot be opened: the {whose} as many files open as it may"
        return ResourceError(subject, reason, "raise the limit, as with `ulimit -n 1024`")
    memory = isinstance(error, MemoryError) or number == errno.ENOMEM
    loading = isinstance(error, ImportError | RuntimeError | OSError)
    if memory or (loading and _MEMORY.search(str(error))):
        reason = "there is not enough memory for it"
        return ResourceError(
            subject, reason, "close other programs, or raise the limit (`ulimit -v`)"
        )
    return None
