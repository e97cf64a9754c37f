"""Calls into a native library on untrusted data: bounded in time, and quiet when it panics."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from lolama_core.protocols.checks import words_of
from lolama_core.protocols.errors import LolamaError, ModelError
from lolama_core.protocols.locks import while_locked

T = TypeVar("T")
_PARTS = 50
"""In how many parts a limit is waited for: what is stopped meanwhile loses one of them."""


class _NativeStderr:
    """Drops what native code writes to file descriptor 2: a Rust panic prints a backtrace there.

    The descriptor belongs to the whole process. Of the threads that want it closed at the same time, the
    first saves it and the last puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: set[object] = set()
        self._saved = -1

    def closed_during(self, work: Callable[[], None]) -> None:
        """Call ``work`` meanwhile."""
        user = object()
        try:
            while_locked(self._lock, partial(self._begin, user))
            work()
        finally:
            while_locked(self._lock, partial(self._end, user))

    def _begin(self, user: object) -> None:
        self._users.add(user)
        if self._saved < 0:
            self._close()

    def _end(self, user: object) -> None:
        self._users.discard(user)
        if not self._users and self._saved >= 0:
            os.dup2(self._saved, 2)
            os.close(self._saved)
            self._saved = -1

    def _close(self) -> None:
        try:
            sys.stderr.flush()
            self._saved = os.dup(2)
        except (OSError, AttributeError, ValueError):  # there is no standard error to protect
            return
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 2)


_stderr = _NativeStderr()


def call_native(function: Callable[[], T], *, subject: str, seconds: float | None = None) -> T:
    """Run ``function``; turn its failure, panic or endless run into an error.

    Args:
        function: What to call.
        subject: The file it stems from, for the message.
        seconds: Give up after this long. The call then goes on in a daemon thread, which nothing can
            stop but which does not keep the process alive. None trusts it to end.

    Raises:
        ModelError: naming ``subject``.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:  # a Rust panic derives from BaseException alone
            failure.append(error)

    def run_in_time(seconds: float) -> None:
        worker = threading.Thread(target=run, daemon=True)
        worker.start()
        # A process may be stopped for long, as by Ctrl-Z.
        for _ in range(_PARTS):
            worker.join(seconds / _PARTS)
            if not worker.is_alive():
                break

    _stderr.closed_during(run if seconds is None else partial(run_in_time, seconds))
    if failure:
        error = failure[0]
        if isinstance(error, KeyboardInterrupt | SystemExit | LolamaError):
            raise error
        reason = f"cannot be used: {words_of(error)}"
        raise ModelError(subject, reason, "fetch the file again") from None
    if not result:
        raise ModelError(
            subject,
            f"took longer than {seconds:g} s on this text; a pattern or its model explodes",
            "use another tokenizer.json",
        )
    return result[0]
