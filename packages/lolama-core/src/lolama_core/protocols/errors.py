"""Every error lolama raises on purpose: one tree, one message shape, one exit code each.

A message has three parts so that a reader can act on it: *where* (a file, an option, a model), *why* it
was refused (with the value and the limit), and *what to do*. ``str(error)`` is ``where: why; what to do``,
on one line. The command line prints exactly that after ``error: ``; the Python API raises it.

Errors are part of the contract between packages, which is why they live with the protocols.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_MODEL = 3
EXIT_NETWORK = 4
EXIT_AUTHORISATION = 5
EXIT_RESOURCES = 6
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
EXIT_TERMINATED = 143


class LolamaError(Exception):
    """Base of all deliberate errors.

    Args:
        subject: The file, option or model that the error is about.
        reason: What is wrong with it: the value found and the limit or form expected.
        remedy: The next step; empty when there is none to give.
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
    """An argument or option that cannot be honoured: a value out of range, a prompt that is too long."""

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
    """Not enough disk or memory."""

    exit_code = EXIT_RESOURCES


class NotAvailableError(LolamaError, NotImplementedError):
    """Something that needs a package that is not installed, or that no package does."""

    exit_code = EXIT_USAGE
