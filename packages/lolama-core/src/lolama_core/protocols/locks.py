"""Locks that Ctrl-C never leaves behind.

A ``with`` block does not suffice. Python 3.14 may raise KeyboardInterrupt when the lock has been taken and
the block has not begun. A context manager in Python keeps its lock as long as somebody keeps the error, as
an interactive Python does, if Ctrl-C comes where its block begins or ends. So each lock here is taken by one
call that notes it, too: Ctrl-C is raised within that call, while it waits, or behind it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from operator import methodcaller
from typing import TypeAlias, TypeVar

T = TypeVar("T")
AnyLock: TypeAlias = "threading.Lock | threading.RLock"

_acquire, _try_to_acquire = methodcaller("acquire"), methodcaller("acquire", blocking=False)


def while_locked(lock: AnyLock, work: Callable[[], T]) -> T:
    """Call ``work`` while this thread has a lock, which it gives back however that ends.

    Returns:
        What ``work`` returns.
    """
    taken: list[bool] = []
    try:
        taken.extend(map(_acquire, (lock,)))
        return work()
    finally:
        if True in taken:  # a function that is called here could be broken off
            lock.release()


def if_free(lock: AnyLock, work: Callable[[], object]) -> bool:
    """As `while_locked`, unless another thread has the lock.

    Returns:
        Whether ``work`` was called.
    """
    taken: list[bool] = []
    try:
        taken.extend(map(_try_to_acquire, (lock,)))
        if taken[0]:
            work()
        return taken[0]
    finally:
        if True in taken:
            lock.release()
