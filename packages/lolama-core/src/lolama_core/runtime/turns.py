"""Turns in which shared rows are changed, and what has to wait for the end of one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from lolama_core.protocols.locks import if_free, while_locked

T = TypeVar("T")


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

    def take(self, work: Callable[[], T]) -> T:
        """Call ``work`` in a turn, once no other thread has one. A turn may be within another of the thread.

        Returns:
            What ``work`` returns.
        """
        if self._owner == threading.get_ident():
            return work()
        try:
            return while_locked(self._lock, partial(self._turn, work))
        finally:
            self._make_changes()

    def when_free(self, change: Callable[[], None]) -> None:
        """Make a change when nobody has a turn: now, or after the turn that this or another thread is in.

        It waits for no other thread, since that may wait for this one. Whoever has the next turn finds the
        change made.

        Args:
            change: If Ctrl-C breaks it off, it is made again, as a whole.
        """
        self._waiting.append(change)
        self._make_changes()

    def _make_changes(self) -> None:
        """Make the changes that wait, unless somebody has a turn, who then makes them after it."""
        while self._waiting and self._owner != threading.get_ident():
            if not if_free(self._lock, partial(self._turn, lambda: None)):
                return

    def _turn(self, work: Callable[[], T]) -> T:
        """A turn of this thread, which has the lock. Ctrl-C within it tears what is shared."""
        self._owner = threading.get_ident()
        try:
            if self._torn:
                self._repair()
            self._torn = True
            try:
                while self._waiting:
                    self._make_first()
                result = work()
            except Exception:
                self._torn = False
                raise
            self._torn = False
            return result
        finally:
            self._owner = None

    def _make_first(self) -> None:
        change = self._waiting[0]
        try:
            change()
        except Exception:
            self._waiting.popleft()
            raise
        self._waiting.popleft()
