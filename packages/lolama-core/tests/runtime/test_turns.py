"""Who changes shared rows, and when: within a thread, and between threads."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lolama_core.runtime.turns import Turns


@contextmanager
def turn_elsewhere(turns: Turns) -> Iterator[threading.Event]:
    """Another thread has a turn until the event is set, or to the end of the block."""
    begun, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with turns.turn():
            begun.set()
            assert leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert begun.wait(60)
        try:
            yield leave
        finally:
            leave.set()
            held.result(60)


def test_one_thread_has_a_turn_at_a_time() -> None:
    turns, inside, counts = Turns(), list[int](), set[int]()

    def take(number: int) -> None:
        for _ in range(300):
            with turns.turn(), turns.turn():
                inside.append(number)
                counts.add(len(inside))
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(take, range(4))] == [None] * 4
    assert counts == {1}


def test_another_thread_waits_for_the_end_of_the_outermost_turn() -> None:
    turns, seen = Turns(), list[str]()

    def take() -> None:
        with turns.turn():
            seen.append("other")

    with ThreadPoolExecutor(1) as pool:
        with turns.turn():
            other = pool.submit(take)
            with turns.turn():
                seen.append("inner")
            seen.append("outer")
        other.result(60)
    assert seen == ["inner", "outer", "other"]


def test_a_change_is_made_at_once_if_nobody_has_a_turn() -> None:
    turns, seen = Turns(), list[int]()
    turns.when_free(lambda: seen.append(1))
    assert seen == [1]


def test_a_change_within_a_turn_waits_for_its_end() -> None:
    turns, seen = Turns(), list[int]()
    with turns.turn():
        with turns.turn():
            turns.when_free(lambda: seen.append(1))
            turns.when_free(lambda: seen.append(2))
        assert not seen
    assert seen == [1, 2]


def test_a_change_is_a_turn_of_its_own() -> None:
    turns, seen = Turns(), list[str]()

    def change() -> None:
        with turns.turn():
            turns.when_free(lambda: seen.append("later"))
            seen.append("now")

    turns.when_free(change)
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

    with turns.turn():
        turns.when_free(collect)
        turns.when_free(lambda: seen.append("second"))
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

    def take(own: Turns, others: Turns, name: str) -> None:
        with own.turn():
            meet.wait()
            others.when_free(lambda: seen.append(name))
            meet.wait()

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(take, one, other, "one")
        take(other, one, "other")
        beside.result(60)
    assert sorted(seen) == ["one", "other"]


def test_the_next_turn_finds_the_change_made() -> None:
    turns, seen = Turns(), list[int]()
    with turn_elsewhere(turns) as leave:
        turns.when_free(lambda: seen.append(1))
        leave.set()
        with turns.turn():
            assert seen == [1]


def test_a_turn_that_fails_makes_the_changes_that_wait() -> None:
    turns, seen = Turns(), list[int]()

    def fail() -> None:
        with turns.turn():
            turns.when_free(lambda: seen.append(1))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [1]


def test_a_change_that_fails_leaves_turns_as_good_as_new() -> None:
    """An interrupt may come at any line of it."""
    turns, seen = Turns(), list[int]()

    def interrupted() -> None:
        raise KeyboardInterrupt

    def take() -> None:
        with turns.turn():
            turns.when_free(interrupted)
            turns.when_free(lambda: seen.append(1))

    with pytest.raises(KeyboardInterrupt):
        take()
    with turns.turn():
        turns.when_free(lambda: seen.append(2))
        assert seen == [1]
    assert seen == [1, 2]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(turns.when_free, lambda: seen.append(3)).result(60)
    assert seen == [1, 2, 3]
