"""Who changes shared rows, and when: within a thread, and between threads."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

import lolama_core.runtime.turns as turns_of_lolama
from lolama_core.protocols import locks
from lolama_core.runtime.turns import Turns
from lolama_core.testing.ctrl_c import CtrlC


@contextmanager
def turn_elsewhere(turns: Turns) -> Iterator[threading.Event]:
    """Another thread has a turn until the event is set, or to the end of the block."""
    begun, leave = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(turns.take, hold)
        assert begun.wait(60)
        try:
            yield leave
        finally:
            leave.set()
            held.result(60)


def test_one_thread_has_a_turn_at_a_time() -> None:
    turns, inside, counts = Turns(), list[int](), set[int]()

    def change(number: int) -> None:
        inside.append(number)
        counts.add(len(inside))
        inside.pop()

    def take(number: int) -> None:
        for _ in range(300):
            turns.take(lambda: turns.take(partial(change, number)))

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(take, range(4))] == [None] * 4
    assert counts == {1}


def test_another_thread_waits_for_the_end_of_the_outermost_turn() -> None:
    turns, seen = Turns(), list[str]()
    with ThreadPoolExecutor(1) as pool:

        def outer() -> Future[None]:
            other = pool.submit(turns.take, lambda: seen.append("other"))
            turns.take(lambda: seen.append("inner"))
            seen.append("outer")
            return other

        turns.take(outer).result(60)
    assert seen == ["inner", "outer", "other"]


def test_a_change_is_made_at_once_if_nobody_has_a_turn() -> None:
    turns, seen = Turns(), list[int]()
    turns.when_free(lambda: seen.append(1))
    assert seen == [1]


def test_a_change_within_a_turn_waits_for_its_end() -> None:
    turns, seen = Turns(), list[int]()

    def inner() -> None:
        turns.when_free(lambda: seen.append(1))
        turns.when_free(lambda: seen.append(2))

    def outer() -> None:
        turns.take(inner)
        assert not seen

    turns.take(outer)
    assert seen == [1, 2]


def test_a_change_is_a_turn_of_its_own() -> None:
    turns, seen = Turns(), list[str]()

    def change() -> None:
        turns.when_free(lambda: seen.append("later"))
        seen.append("now")

    turns.when_free(lambda: turns.take(change))
    assert seen == ["now", "later"]


def test_what_is_collected_while_changes_are_made_is_not_left_over() -> None:
    """Its change comes behind them."""
    turns, seen = Turns(), list[str]()

    class Dropped:
        def __del__(self) -> None:
            turns.when_free(lambda: seen.append("collected"))

    def collect() -> None:
        circle: list[object] = [Dropped()]
        circle.append(circle)
        del circle
        gc.collect()
        seen.append("first")

    def drop() -> None:
        turns.when_free(collect)
        turns.when_free(lambda: seen.append("second"))

    turns.take(drop)
    assert seen == ["first", "second", "collected"]


def test_a_change_waits_for_the_turn_of_another_thread_and_its_caller_does_not() -> None:
    """Waiting, it might hold up the other one, which has a change for what this thread is at."""
    turns, seen = Turns(), list[int]()
    with turn_elsewhere(turns):
        turns.when_free(lambda: seen.append(1))
        assert not seen
    assert seen == [1]


def test_two_threads_that_change_what_the_other_is_at() -> None:
    one, other, seen = Turns(), Turns(), list[str]()
    meet = threading.Barrier(2, timeout=60)

    def change(others: Turns, name: str) -> None:
        meet.wait()
        others.when_free(lambda: seen.append(name))
        meet.wait()

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(one.take, lambda: change(other, "one"))
        other.take(lambda: change(one, "other"))
        beside.result(60)
    assert sorted(seen) == ["one", "other"]


def test_the_next_turn_finds_the_change_made() -> None:
    turns, seen = Turns(), list[int]()
    with turn_elsewhere(turns) as leave:
        turns.when_free(lambda: seen.append(1))
        leave.set()
        assert turns.take(seen.copy) == [1]


def test_a_turn_that_fails_makes_the_changes_that_wait() -> None:
    turns, seen = Turns(), list[int]()

    def fail() -> None:
        turns.when_free(lambda: seen.append(1))
        raise KeyError

    with pytest.raises(KeyError):
        turns.take(fail)
    assert seen == [1]


def test_a_change_that_fails_leaves_turns_as_good_as_new() -> None:
    turns, seen = Turns(), list[int]()

    def fail() -> None:
        raise KeyError

    def take() -> None:
        turns.when_free(fail)
        turns.when_free(lambda: seen.append(1))

    with pytest.raises(KeyError):
        turns.take(take)

    def take_again() -> None:
        assert seen == [1]
        turns.when_free(lambda: seen.append(2))
        assert seen == [1]

    turns.take(take_again)
    assert seen == [1, 2]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(turns.when_free, lambda: seen.append(3)).result(60)
    assert seen == [1, 2, 3]


SOURCES = [turns_of_lolama.__file__, locks.__file__, __file__]


def places(work: Callable[[], None]) -> range:
    """Where Ctrl-C may come within ``work``."""
    counted = CtrlC[None](*SOURCES)
    counted.during(work)
    return range(1, counted.instructions + 1)


def test_row_325_ctrl_c_anywhere_in_a_turn_leaves_turns_free_and_each_change_made() -> None:
    """The error is kept, as an interactive Python keeps it."""
    seen, torn, whole = list[str](), list[bool](), list[bool]()

    def half_done() -> None:
        whole[:] = [False]
        seen.append("work")
        whole[:] = [True]

    def take(turns: Turns) -> None:
        def work() -> None:
            turns.when_free(lambda: seen.append("change"))
            half_done()

        turns.take(work)

    for place in places(partial(take, Turns())):
        seen.clear()
        torn.clear()
        whole[:] = [True]
        turns, ctrl_c = Turns(lambda: torn.append(True)), CtrlC[None](*SOURCES, place=place)
        with pytest.raises(KeyboardInterrupt) as kept:
            ctrl_c.during(partial(take, turns))
        # Another thread has its turn, and finds all whole.
        found: list[str] = []
        other = threading.Thread(
            target=turns.take, args=(partial(found.extend, seen),), daemon=True
        )
        other.start()
        other.join(60)
        assert not other.is_alive(), ctrl_c.where
        assert whole[0] or torn, ctrl_c.where
        assert "change" in found or not {"work", "change"} & {*found}, ctrl_c.where
        assert found == seen
        assert kept.value


def test_row_326_a_change_that_ctrl_c_breaks_off_is_made_again() -> None:
    """A row that somebody dropped would hold its memory for ever."""
    turns, seen = Turns(), list[str]()

    def change() -> None:
        seen.append("begun")
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append("done")

    with pytest.raises(KeyboardInterrupt):
        turns.when_free(change)
    turns.take(lambda: seen.append("work"))
    assert seen == ["begun", "begun", "done", "work"]
