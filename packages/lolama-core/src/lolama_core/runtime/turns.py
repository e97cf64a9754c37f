"""Turns in which shared rows are changed, and what has to wait for the end of one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turns:
    """Lets one thread at a time change something that several use.

    A generation that somebody drops ends when Python collects it, which may be in the middle of any line of
    the same thread. What it wants to change waits for the end of the turn that it has interrupted.

    Args:
        repair: Called before the next turn when Ctrl-C has broken one off, maybe in the middle of a change.
    """

    def __init__(self, repair: Callable[[], None] = lambda: None) -> None:
        self._repair = repair
        self._torn = False
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._waiting: deque[Callable[[], None]] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn, once no other thread has one. A turn may be within another of the same thread."""
        if self._owner == threading.get_ident():
            yield
            return
        try:
            with self._lock, self._noticing_breaks():
                self._make_whole()
                self._make_changes()
                self._owner = threading.get_ident()
                yield
        finally:
            self._make_changes()

    def when_free(self, change: Callable[[], None]) -> None:
        """Make a change when nobody has a turn: now, or after the turn that this or another thread is in.

        It waits for no other thread, since that may wait for this one. Whoever has the next turn finds the
        change made.
        """
        self._waiting.append(change)
        self._make_changes()

    def _make_changes(self) -> None:
        """Make the changes that wait, unless somebody has a turn, who then makes them after it."""
        while self._waiting and self._owner != threading.get_ident():
            if not self._lock.acquire(blocking=False):
                return
            try:
                with self._noticing_breaks():
                    self._owner = threading.get_ident()
                    self._make_whole()
                    while self._waiting:
                        self._waiting.popleft()()
            finally:
                self._lock.release()

    @contextmanager
    def _noticing_breaks(self) -> Iterator[None]:
        """To its end this thread may have a turn. Ctrl-C within it, or at its end, tears what is shared."""
        try:
            try:
                yield
            finally:
                self._owner = None
        except BaseException as error:
            self._owner = None
            self._torn |= not isinstance(error, Exception)
            raise

    def _make_whole(self) -> None:
        if self._torn:
            self._repair()
            self._torn = False
