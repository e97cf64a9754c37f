"""Rows get memory as they grow, under a limit of bytes."""

from __future__ import annotations

import pytest

from lolama_core import Llama, LlamaConfig, RopeScaling
from lolama_core.runtime import row_memory
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import PAGE, Pages
from lolama_core.runtime.row_memory import RowMemory

SIZES = {"vocab_size": 9, "d_model": 8, "num_heads": 2, "num_layers": 2, "hidden_dim": 8}
POSITION = 2 * 2 * 8 * 4
"""Bytes: keys and values, layers, heads and their width, float32."""


def model(**more: object) -> Llama:
    return Llama(LlamaConfig(**{**SIZES, "max_seq_len": 1000, **more}))  # type: ignore[arg-type]


@pytest.fixture
def memory() -> RowMemory:
    """For four pages."""
    return RowMemory(model(), rows=8, max_bytes=4 * PAGE * POSITION + 5)


def grow(memory: RowMemory, row: Row, count: int) -> None:
    for _, cache in memory.passes([row]):
        assert isinstance(cache, PagedCache)
        cache.reserve([count], count)
        cache.advance([count])


def test_what_is_promised_is_kept_for_its_row(memory: RowMemory) -> None:
    first, second, third = Row(), Row(), Row()
    assert memory.begin(first, [], 3 * PAGE, 1000)
    assert memory.used_bytes == 0  # nothing has run
    assert not memory.begin(second, [], PAGE + 1, 1000)
    assert memory.begin(second, [], PAGE, 1000)
    assert not memory.begin(third, [], 1, 1000)
    grow(memory, first, 2 * PAGE)
    grow(memory, second, PAGE)
    assert memory.used_bytes == 3 * PAGE * POSITION
    assert not memory.has_next([second])  # the fourth page is promised to the first
    assert memory.has_next([])
    memory.end(first)
    assert memory.has_next([second]) and memory.begin(third, [], PAGE, 1000)
    memory.end(second)
    memory.end(third)
    assert memory.used_bytes == 0


def test_pages_are_left_for_rows_that_grow(memory: RowMemory) -> None:
    first = Row()
    assert memory.begin(first, [], 2 * PAGE, 1000)
    assert not memory.begin(Row(), [], 1, 1000, spare=2)
    assert memory.begin(Row(), [], 1, 1000, spare=1)


def test_a_row_that_has_room_in_its_last_page_needs_none(memory: RowMemory) -> None:
    row = Row()
    assert memory.begin(row, [], 4 * PAGE, 1000)
    grow(memory, row, 4 * PAGE - 1)
    assert memory.has_next([row])
    grow(memory, row, 1)
    assert not memory.has_next([row])


def test_all_rows_run_in_one_pass(memory: RowMemory) -> None:
    rows = [Row(), Row()]
    assert all(memory.begin(row, [], 3, 1000) for row in rows)
    [(places, cache)] = memory.passes(rows)
    assert (list(places), cache.lengths) == ([0, 1], (0, 0))
    assert not [*memory.passes([])]


def test_under_dynamic_rope_each_row_has_a_cache_of_its_own() -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=100)
    dynamic = model(rope_scaling=scaling)
    each = dynamic.make_cache(1, 50).nbytes
    memory = RowMemory(dynamic, rows=8, max_bytes=2 * each + 10)
    rows = [Row(), Row(), Row()]
    assert [memory.begin(row, [], 5, 50) for row in rows] == [True, True, False]
    assert memory.used_bytes == 2 * each
    assert [list(places) for places, _ in memory.passes(rows[:2])] == [[0], [1]]
    memory.end(rows[0])
    assert memory.begin(rows[2], [], 5, 50)


def test_without_a_limit_it_is_what_the_memory_has_free() -> None:
    memory = RowMemory(model(), rows=2, max_bytes=None)
    row = Row()
    assert memory.begin(row, [], 1000, 1000)
    assert memory.begin(Row(), [], 1000, 1000)
    assert not memory.begin(Row(), [], 1, 1000)  # two rows of the whole context are the most


def test_pages_that_found_no_memory_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> Pages:
        raise MemoryError

    memory = RowMemory(model(), rows=2, max_bytes=None)
    with monkeypatch.context() as patched:
        patched.setattr(row_memory, "Pages", full)
        with pytest.raises(MemoryError):
            memory.begin(Row(), [], 5, 50)
    row = Row()
    assert memory.begin(row, [], 5, 50)
    [(_, cache)] = memory.passes([row])
    assert isinstance(cache, PagedCache)


def test_a_row_has_what_is_promised_to_itself(memory: RowMemory) -> None:
    rows = [Row(), Row()]
    for row in rows:
        assert memory.begin(row, [], PAGE + 1, 50)
        grow(memory, row, PAGE)
    assert memory.has_next(rows)
    assert memory.has_next(rows[:1])
    assert memory.begin(Row(), [], 0, 50)
    assert not memory.begin(Row(), [], 1, 50)  # what is left is promised
