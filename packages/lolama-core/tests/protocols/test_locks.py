"""Locks, wherever Ctrl-C comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from lolama_core.protocols import locks
from lolama_core.protocols.locks import if_free, while_locked
from lolama_core.testing.ctrl_c import CtrlC

SOURCES = [locks.__file__, __file__]
LOCKS: list[Callable[[], Any]] = [threading.Lock, threading.RLock]


def is_free(lock: Any) -> bool:
    """Whether another thread can have it."""

    def take() -> bool:
        found: bool = lock.acquire(blocking=False)
        if found:
            lock.release()
        return found

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(take).result()


@pytest.mark.parametrize("make", LOCKS)
def test_a_lock_is_held_during_the_work_and_free_behind_it(make: Callable[[], Any]) -> None:
    lock = make()
    assert while_locked(lock, lambda: (is_free(lock), 7)) == (False, 7)
    assert is_free(lock)
    found: list[bool] = []
    assert if_free(lock, lambda: found.append(is_free(lock)))
    assert found == [False]
    assert is_free(lock)


@pytest.mark.parametrize("call", [while_locked, if_free])
def test_a_lock_is_free_behind_work_that_fails(call: Callable[..., object]) -> None:
    def fail() -> None:
        raise KeyError

    lock = threading.Lock()
    with pytest.raises(KeyError):
        call(lock, fail)
    assert is_free(lock)


def test_nobody_waits_for_a_lock_that_need_not_be_had() -> None:
    lock = threading.Lock()
    with ThreadPoolExecutor(1) as pool:
        found = while_locked(lock, lambda: pool.submit(if_free, lock, pytest.fail).result(60))
    assert not found
    assert is_free(lock)


@pytest.mark.parametrize("call", [while_locked, if_free])
@pytest.mark.parametrize("make", LOCKS)
def test_row_325_ctrl_c_anywhere_leaves_a_lock_free(
    make: Callable[[], Any], call: Callable[..., object]
) -> None:
    def take(lock: Any) -> object:
        return call(lock, lambda: None)

    counted = CtrlC[object](*SOURCES)
    counted.during(partial(take, make()))
    for place in range(1, counted.instructions + 1):
        lock, ctrl_c = make(), CtrlC[object](*SOURCES, place=place)
        with pytest.raises(KeyboardInterrupt) as kept:
            ctrl_c.during(partial(take, lock))
        assert is_free(lock), ctrl_c.where
        assert kept.value
