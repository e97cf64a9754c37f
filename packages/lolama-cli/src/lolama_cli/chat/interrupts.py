"""Ctrl-C in a chat: it stops a reply, and leaves only when it is pressed again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lolama_core.protocols.errors import EXIT_INTERRUPTED


class Interrupts:
    """Turns SIGINT into KeyboardInterrupt where that does no harm, and keeps it until there elsewhere.

    Args:
        before_leaving: Is called before a second Ctrl-C in a row ends the process: brings the terminal back.
    """

    def __init__(self, before_leaving: Callable[[], None] = lambda: None) -> None:
        self._before_leaving = before_leaving
        self._armed = self._pending = False

    def install(self) -> None:
        """Take SIGINT over, unless whoever started the program has it ignored."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._received)

    def forget(self) -> None:
        """What was interrupted has ended; the next Ctrl-C is a first one again."""
        self._pending = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that may be broken off at any moment.

        Raises:
            KeyboardInterrupt: if Ctrl-C comes inside, or came before.
        """
        self._armed = True
        try:
            if self._pending:
                raise KeyboardInterrupt
            yield
        finally:
            self._armed = False

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._pending:  # whoever asks twice does not want to wait for what ends in good order
            self._before_leaving()
            os._exit(EXIT_INTERRUPTED)
        self._pending = True
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt
