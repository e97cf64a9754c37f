"""Engines of several threads whose rows share one memory: who finds none waits for the others."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from lolama_core import Engine, Generation, Llama, TextGenerator
from lolama_core.generation import schedule
from lolama_core.protocols.errors import ResourceError
from lolama_core.runtime.pages import PAGE
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

MakeLlama = Callable[..., Llama]
POSITION = 2 * 2 * 2 * 8 * 4
"""Bytes of a position: keys and values, 2 layers, 2 heads, 8 wide, float32."""


class Shared:
    """Engines of one model, whose rows have four pages together."""

    def __init__(self, model: Llama) -> None:
        self.model, self._runner = model, runner_of(model)
        self.memory = RowMemory(self._runner, max_bytes=4 * PAGE * POSITION)

    def engine(self, ids: list[int], new: int) -> tuple[Engine[None], int]:
        """One with a text of its own."""
        engine = Engine(self.model, memory_of=lambda runner: self.memory, draft="off")
        return engine, engine.submit(ids, max_new_tokens=new, ignore_eos=True, seed=1)

    def expected(self, ids: list[int], new: int) -> Any:
        alone = TextGenerator(self.model, draft="off")
        return alone.generate(ids, max_new_tokens=new, ignore_eos=True, seed=1)


@pytest.fixture
def shared(tiny_llama: MakeLlama) -> Shared:
    return Shared(tiny_llama(max_seq_len=200))


def finish(engine: Engine[None]) -> list[Any]:
    results: dict[int, Any] = {}
    while engine.busy:
        engine.step()
        results |= engine.collect()
    return [*results.values()]


@contextmanager
def held_elsewhere(shared: Shared, length: int) -> Iterator[tuple[threading.Event, Future[Any]]]:
    """A row of another thread that holds positions, and goes on to its end once the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def run() -> list[Any]:
        engine, _ = shared.engine([1] * length, 5)
        engine.step()
        begun.set()
        assert go_on.wait(60)
        return finish(engine)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(run)
        assert begun.wait(60)
        try:
            yield go_on, held
        finally:
            go_on.set()


def test_row_332_a_text_waits_for_memory_that_rows_of_another_thread_hold(shared: Shared) -> None:
    with held_elsewhere(shared, 3 * PAGE) as (go_on, held):
        engine, _ = shared.engine([2] * 40, 5)
        for _ in range(20):
            assert engine.step() == []
            assert engine.collect() == {}
        assert engine.busy
        go_on.set()
        assert finish(engine) == [shared.expected([2] * 40, 5)]
    assert held.result(60) == [shared.expected([1] * 3 * PAGE, 5)]
    assert shared.memory.used_bytes == 0


def test_row_332_a_text_that_grows_gives_way_to_rows_of_another_thread(shared: Shared) -> None:
    """It has run half of its tokens; it goes on behind them once there is memory."""
    with held_elsewhere(shared, 3 * PAGE - 6) as (go_on, held):
        engine, _ = shared.engine([2] * (PAGE - 4), 20)
        given = sum(len(engine.step()) for _ in range(40))
        assert 0 < given < 20
        assert shared.memory.used_bytes == 3 * PAGE * POSITION  # those of the other alone
        go_on.set()
        assert finish(engine) == [shared.expected([2] * (PAGE - 4), 20)]
    assert held.result(60) == [shared.expected([1] * (3 * PAGE - 6), 5)]
    assert shared.memory.used_bytes == 0


def test_row_425_a_process_that_is_stopped_meanwhile_has_waited_no_longer(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hours pass between two looks: the others could not go on, either."""
    hours = itertools.count()
    with held_elsewhere(shared, 3 * PAGE) as (go_on, held):
        engine, _ = shared.engine([2] * 40, 5)
        for _ in range(3):
            assert (engine.step(), engine.collect()) == ([], {})
            monkeypatch.setattr(schedule, "monotonic", lambda: 3600.0 * next(hours))
        monkeypatch.undo()
        go_on.set()
        assert finish(engine) == [shared.expected([2] * 40, 5)]
    assert held.result(60) == [shared.expected([1] * 3 * PAGE, 5)]


def test_row_332_nobody_waits_for_ever(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a row that does not go on, nor for one of its own thread."""
    monkeypatch.setattr(schedule, "_PATIENCE", 0.2)
    with held_elsewhere(shared, 3 * PAGE):
        engine, _ = shared.engine([2] * 40, 5)
        [failed] = finish(engine)
        assert isinstance(failed, ResourceError)
    monkeypatch.setattr(schedule, "_PATIENCE", 1000.0)
    first, _ = shared.engine([1] * 3 * PAGE, 5)
    first.step()
    second, _ = shared.engine([2] * 40, 5)
    second.step()
    [refused] = second.collect().values()
    assert isinstance(refused, ResourceError)
    assert [isinstance(result, Generation) for result in finish(first)] == [True]
    assert shared.memory.used_bytes == 0
