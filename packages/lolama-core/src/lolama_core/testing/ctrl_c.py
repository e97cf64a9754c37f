"""Ctrl-C at a chosen place of a program, as it comes in life."""

from __future__ import annotations

import _thread
import signal
import sys
import weakref
from collections.abc import Callable
from operator import methodcaller
from types import FrameType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Behind:
    """An object of a trace function, which ends with its frame: behind all that Python does there."""


class _Signal(weakref.ref[_Behind]):
    """Sends the signal when its object ends. No code of Python runs for that, which would see the signal."""

    send = _thread.interrupt_main


class CtrlC(Generic[T]):
    """Ctrl-C at the n-th instruction of Python that runs in some files.

    An error that is raised at any line would break off what nothing can break off. Here the signal comes, and
    KeyboardInterrupt is raised when Python looks for signals next: where a call has ended, where a function
    begins, or in the next round of a loop.

    Args:
        files: The beginnings of their names.
        place: Which instruction; None to count them only.

    Attributes:
        instructions: How many have run.
        where: Function and line of that instruction, once it came.
        result: What was returned, even if Ctrl-C came behind that; None if nothing was.
    """

    def __init__(self, *files: str, place: int | None = None) -> None:
        self._files, self._place = files, place
        self.instructions, self.where = 0, ""
        self.result: T | None = None
        self._signal: _Signal | None = None

    def during(self, work: Callable[[], T]) -> T:
        """What ``work`` returns.

        Raises:
            KeyboardInterrupt: if it comes to the place.
        """
        self.result = None
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            sys.settrace(self._calls)
            self.result = result = work()
            return result
        finally:
            sys.settrace(None)
            signal.signal(signal.SIGINT, before)

    def _calls(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(self._files):
            return None
        frame.f_trace_opcodes = True
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            self.instructions += 1
            if self.instructions == self._place:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                sys.settrace(None)  # this function would be the first to see the signal
                behind = _Behind()
                self._signal = _Signal(behind, methodcaller("send"))
        return self._instruction
