"""Calls into a native library on untrusted data: bounded in time, and quiet when it panics."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lolama_core.protocols.errors import ModelError

T = TypeVar("T")


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Drop what native code writes to file descriptor 2: a Rust panic prints a backtrace there."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError, ValueError):  # there is no standard error to protect
        yield
        return
    try:
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


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

    with _native_stderr_closed():
        if seconds is None:
            run()
        else:
            worker = threading.Thread(target=run, daemon=True)
            worker.start()
            worker.join(seconds)
    if failure:
        error = failure[0]
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(subject, f"cannot be used: {why}", "fetch the file again") from None
    if not result:
        raise ModelError(
            subject,
            f"took longer than {seconds:g} s on this text; its pre-tokenizer pattern explodes",
            "use another tokenizer.json",
        )
    return result[0]
