"""Rows get memory as they grow, under a limit of bytes, and run in it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Llama, LlamaConfig, RopeScaling
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime import row_memory
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.pages import PAGE, Pages
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import Runner

SIZES = {"vocab_size": 9, "d_model": 8, "num_heads": 2, "num_layers": 2, "hidden_dim": 8}
POSITION = 2 * 2 * 8 * 4
"""Bytes: keys and values, layers, heads and their width, float32."""


def make_model(**more: object) -> Llama:
    torch.manual_seed(0)
    config = LlamaConfig(**{**SIZES, "max_seq_len": 1000, **more})  # type: ignore[arg-type]
    return Llama(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Llama:
    return make_model()


@pytest.fixture
def memory(model: Llama) -> RowMemory:
    """For four pages."""
    return RowMemory(model, rows=8, max_bytes=4 * PAGE * POSITION + 5)


def ids_of(*size: int) -> Tensor:
    return torch.randint(0, 9, size, generator=torch.Generator().manual_seed(sum(size)))


@torch.inference_mode()
def grow(memory: RowMemory, row: Row, count: int) -> None:
    assert memory.model is not None
    memory.run([row], memory.model.embed(ids_of(1, count)), [count])


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
    assert not memory.has_room([second], [1])  # the fourth page is promised to the first
    assert memory.has_room([], [])
    memory.end(first)
    assert memory.has_room([second], [1]) and memory.begin(third, [], PAGE, 1000)
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
    assert memory.has_room([row], [1])
    grow(memory, row, 1)
    assert not memory.has_room([row], [1])


def test_a_row_has_what_is_promised_to_itself(memory: RowMemory) -> None:
    rows = [Row(), Row()]
    for row in rows:
        assert memory.begin(row, [], PAGE + 1, 50)
        grow(memory, row, PAGE)
    assert memory.has_room(rows, [1] * len(rows))
    assert memory.has_room(rows[:1], [1] * len(rows[:1]))
    assert memory.begin(Row(), [], 0, 50)
    assert not memory.begin(Row(), [], 1, 50)  # what is left is promised


def test_rows_that_try_tokens_ahead_need_pages_for_all_of_them(memory: RowMemory) -> None:
    """Each row has one of four pages, which is full but for a position, or full; so two are left."""
    first, second = Row(), Row()
    for row, count in ((first, PAGE - 1), (second, PAGE)):
        assert memory.begin(row, [], count, 1000)
        grow(memory, row, count)
    rooms = {
        (1, 0): True,
        (1, 2 * PAGE): True,
        (1, 2 * PAGE + 1): False,
        (2, PAGE): True,
        (2, PAGE + 1): False,
        (PAGE + 1, PAGE): True,
        (PAGE + 2, 1): False,
        (2 * PAGE + 1, 0): True,
        (2 * PAGE + 2, 0): False,
    }
    found = {counts: memory.has_room([first, second], counts) for counts in rooms}
    assert found == rooms
    assert (first.length, second.length) == (PAGE - 1, PAGE)
    assert memory.begin(Row(), [], 1, 1000)  # it has a page of the two that were left
    assert memory.has_room([first, second], [1, PAGE])
    assert not memory.has_room([first, second], [2, PAGE])


def test_positions_that_are_taken_away_give_back_the_pages_that_hold_no_other(
    memory: RowMemory,
) -> None:
    row = Row()
    assert memory.begin(row, [], PAGE, 1000)
    grow(memory, row, 2 * PAGE + 2)
    first, second, third = row.pages
    sizes = []
    for count in (1, 1, 0, PAGE - 1, 1, PAGE - 1):
        memory.cut_back(row, count)
        sizes.append((row.length, row.pages, memory.used_bytes // (PAGE * POSITION)))
    assert sizes == [
        (2 * PAGE + 1, [first, second, third], 3),
        (2 * PAGE, [first, second], 2),
        (2 * PAGE, [first, second], 2),
        (PAGE + 1, [first, second], 2),
        (PAGE, [first], 1),
        (1, [first], 1),
    ]
    memory.cut_back(row, 1)
    assert (row.length, row.pages, memory.used_bytes) == (0, [], 0)
    # Its first page is promised to it still.
    assert not memory.begin(Row(), [], 3 * PAGE + 1, 1000)
    assert memory.begin(Row(), [], 3 * PAGE, 1000)
    assert memory.has_room([row], [PAGE])
    assert not memory.has_room([row], [PAGE + 1])


@torch.inference_mode()
def test_what_follows_positions_that_were_taken_away_is_as_if_they_had_never_been(
    memory: RowMemory, model: Llama
) -> None:
    """Wherever a page ends: within them, behind them, in front of them."""
    for length in range(PAGE - 4, PAGE + 2):
        text, wrong = ids_of(1, length), ids_of(1, 3)
        rows = Row(), Row()
        for row in rows:
            assert memory.begin(row, [], length, 1000)
            memory.run([row], model.embed(text), [length])
        memory.run(rows[:1], model.embed(wrong), [3])
        memory.cut_back(rows[0], 3)
        found, expected = (memory.run([row], model.embed(ids_of(1, 5)), [5], "all") for row in rows)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        for row in rows:
            memory.end(row)
        assert memory.used_bytes == 0


def test_a_page_that_is_taken_from_a_row_stays_with_those_who_share_it(memory: RowMemory) -> None:
    keys = ids_of(2 * PAGE + 1).tolist()
    first, second = Row(), Row()
    assert memory.begin(first, [], 2 * PAGE, 1000)
    grow(memory, first, 2 * PAGE)
    memory.keep(first, keys)
    assert memory.begin(second, keys, 2 * PAGE + 1, 1000)
    pages = second.pages
    memory.cut_back(first, PAGE)
    assert (first.pages, second.pages) == (pages[:1], pages)
    assert (memory.used_bytes, memory.idle_bytes) == (2 * PAGE * POSITION, 0)
    memory.end(second)
    assert (memory.used_bytes, memory.idle_bytes) == (PAGE * POSITION, PAGE * POSITION)
    assert memory.known(keys) == 2 * PAGE


def test_rows_may_be_shorter_than_the_context(model: Llama) -> None:
    """Two of 40 positions have two pages each. Where steps are recorded, there is room for any text."""
    memory = RowMemory(model, 2, positions=40)
    assert memory.positions == 40
    rows = [Row() for _ in range(3)]
    assert [memory.begin(row, [], 40, 40) for row in rows] == [True, True, False]
    memory = RowMemory(model, 2, 3 * PAGE * POSITION, positions=40)  # fewer bytes than that
    assert [memory.begin(row, [], 40, 40) for row in rows] == [True, False, False]
    assert memory.begin(rows[1], [], PAGE, 40)
    whole = -(-1000 // PAGE)
    for memory in (RowMemory(model, 1), RowMemory(model, 1, positions=40, record=True)):
        assert memory.positions == 1000
        assert not memory.begin(Row(), [], (whole + 1) * PAGE, 1000)
        assert memory.begin(Row(), [], whole * PAGE, 1000)


def test_what_is_shared_takes_nothing_that_is_left(memory: RowMemory) -> None:
    keys = ids_of(2 * PAGE + 1).tolist()
    first, second = Row(), Row()
    assert memory.begin(first, keys, 2 * PAGE + 1, 1000)
    grow(memory, first, 2 * PAGE + 1)
    memory.keep(first, keys)
    assert not memory.begin(Row(), [], 2 * PAGE, 1000)
    assert memory.begin(second, keys, 3 * PAGE, 1000)
    assert (second.length, second.pages) == (2 * PAGE, first.pages[:2])
    assert memory.used_bytes == 3 * PAGE * POSITION
    assert memory.known(keys) == 2 * PAGE
    memory.end(first)
    memory.end(second)
    assert (memory.used_bytes, memory.idle_bytes, memory.texts) == (0, 3 * PAGE * POSITION, 1)
    memory.forget()
    assert (memory.idle_bytes, memory.texts, memory.known(keys)) == (0, 0, 0)


def test_idle_pages_are_given_up_for_rows_and_when_asked_for(memory: RowMemory) -> None:
    keys = ids_of(3 * PAGE).tolist()
    row, ended = Row(), list[int]()
    memory.on_end = lambda: ended.append(memory.idle_bytes)
    assert memory.begin(row, keys, 3 * PAGE, 1000)
    grow(memory, row, 3 * PAGE)
    memory.keep(row, keys)
    memory.end(row)
    assert ended == [3 * PAGE * POSITION]
    memory.reclaim(3 * PAGE * POSITION)
    assert memory.idle_bytes == 3 * PAGE * POSITION
    memory.reclaim(3 * PAGE * POSITION - 1)
    assert memory.idle_bytes == 2 * PAGE * POSITION
    assert memory.known(keys) == 2 * PAGE
    other = Row()
    assert memory.begin(other, [], 3 * PAGE, 1000)
    grow(memory, other, 3 * PAGE)
    assert (memory.known(keys), memory.idle_bytes) == (PAGE, PAGE * POSITION)
    memory.reclaim(0)
    assert (memory.known(keys), memory.idle_bytes) == (0, 0)


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("window", [None, 5])
def test_all_rows_run_in_one_pass(window: int | None, kernels: bool) -> None:
    """Each gets the logits that it would get alone, whatever the others have."""
    model = make_model(sliding_window=window)
    runner = Runner(model, Kernels.installed() if kernels else Kernels())
    memory, counts = RowMemory(runner, rows=3), [3, PAGE + 1, 1]
    rows, ids = [Row() for _ in counts], ids_of(3, PAGE + 8)
    assert all(memory.begin(row, [], PAGE + 8, 1000) for row in rows)
    with torch.inference_mode():
        given = memory.run(rows, model.embed(ids[:, : PAGE + 1]), counts)
        for row, count in enumerate(counts):
            torch.testing.assert_close(given[row], model(ids[row : row + 1, :count])[0, -1])
        assert [memory.held(row) for row in rows] == counts
        some = [rows[2], rows[1]]
        given = memory.decode(some, [int(ids[2, 1]), int(ids[1, PAGE + 1])])
        for place, (row, count) in enumerate(((2, 2), (1, PAGE + 2))):
            torch.testing.assert_close(given[place], model(ids[row : row + 1, :count])[0, -1])
        whole = memory.run(rows[:1], model.embed(ids[:1, 3:8]), [5], "all")
        torch.testing.assert_close(whole, model(ids[:1, :8])[:, 3:])
    assert [memory.held(row) for row in rows] == [8, PAGE + 2, 2]
    assert not memory.rows_run_alone


def test_under_dynamic_rope_each_row_has_a_cache_of_its_own() -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=10)
    dynamic = make_model(rope_scaling=scaling)
    each = dynamic.make_cache(1, 50).nbytes
    memory = RowMemory(dynamic, rows=8, max_bytes=2 * each + 10)
    rows = [Row(), Row(), Row()]
    assert memory.rows_run_alone and not memory.skips_padding
    assert [memory.begin(row, [], 5, 50) for row in rows] == [True, True, False]
    assert memory.used_bytes == 2 * each
    ids = ids_of(2, 20)
    with torch.inference_mode():
        for place, row in enumerate(rows[:2]):
            memory.run([row], dynamic.embed(ids[place : place + 1, :19]), [19])
            given = memory.decode([row], [int(ids[place, 19])])
            torch.testing.assert_close(given, dynamic(ids[place : place + 1])[:, -1])
            assert memory.held(row) == 20
    assert memory.has_room(rows[:2], [1] * len(rows[:2]))
    memory.keep(rows[0], ids[0].tolist())
    memory.end(rows[0])
    assert (memory.texts, memory.idle_bytes, memory.held(rows[0])) == (0, 0, 0)
    assert memory.begin(rows[2], [], 5, 50)


def test_without_a_limit_it_is_what_the_memory_has_free(model: Llama) -> None:
    memory = RowMemory(model, rows=2, max_bytes=None)
    row = Row()
    assert memory.begin(row, [], 1000, 1000)
    assert memory.begin(Row(), [], 1000, 1000)
    assert not memory.begin(Row(), [], 1, 1000)  # two rows of the whole context are the most


def test_what_is_free_limits_it(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four fifths of it, and a page in any case."""
    for free, pages in ((10 * PAGE * POSITION, 8), (2, 1)):
        monkeypatch.setattr(row_memory, "free_memory", lambda device, free=free: free)
        memory = RowMemory(model, rows=2)
        assert not memory.begin(Row(), [], pages * PAGE + 1, 1000)
        assert memory.begin(Row(), [], pages * PAGE, 1000)


def test_pages_that_found_no_memory_are_asked_for_again(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> Pages:
        raise MemoryError

    memory = RowMemory(model, rows=2, max_bytes=None)
    with monkeypatch.context() as patched:
        patched.setattr(row_memory, "Pages", full)
        with pytest.raises(MemoryError):
            memory.begin(Row(), [], 5, 50)
    row = Row()
    assert memory.begin(row, [], 5, 50)
    grow(memory, row, 5)
    assert memory.held(row) == 5


def test_no_memory_to_begin_with_leaves_nothing_promised(
    memory: RowMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, row = ids_of(20).tolist(), Row()
    assert memory.begin(row, keys, 20, 1000)
    grow(memory, row, 20)
    memory.keep(row, keys)

    def full(*args: object) -> int:
        raise MemoryError

    other = Row()
    with monkeypatch.context() as patched:
        patched.setattr(Pages, "copy", full)
        with pytest.raises(MemoryError):
            memory.begin(other, keys, 3 * PAGE, 1000)
    assert (other.pages, other.length) == ([], 0)
    assert memory.begin(other, [], 3 * PAGE, 1000)


def test_a_model_with_another_cache_is_refused(model: Llama) -> None:
    class Other(Llama):
        def make_cache(self, batch_size: int, capacity: int) -> Any:
            return object()

    other = Other(model.config)
    with pytest.raises(UsageError, match="makes an object, which generation cannot keep"):
        RowMemory(other).open()


def test_it_keeps_no_model_alive() -> None:
    model = make_model()
    memory, row = RowMemory(model), Row()
    assert memory.begin(row, [], 5, 1000)
    grow(memory, row, 5)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and memory.model is None
    memory.end(row)
    assert memory.used_bytes == 0


@pytest.mark.parametrize("record", [False, True])
def test_what_is_released_can_be_used_again(model: Llama, record: bool) -> None:
    """Nothing of the rows before is known then."""
    memory, row, ids = RowMemory(model, rows=2, record=record), Row(), ids_of(1, 40)
    assert not memory.release()  # nothing was run yet
    assert memory.begin(row, [], 50, 1000)
    grow(memory, row, 40)
    memory.keep(row, ids[0].tolist())
    assert record or not memory.release()  # a row still has what it would give back
    memory.end(row)
    assert memory.release()
    assert (memory.known(ids[0].tolist()), memory.used_bytes, memory.idle_bytes) == (0, 0, 0)
    assert memory.begin(row, ids[0].tolist(), 50, 1000)
    assert row.length == 0
    with torch.inference_mode():
        logits = memory.run([row], model.embed(ids), [40])
        torch.testing.assert_close(logits, model(ids)[:, -1])
        logits = memory.decode([row], [3])
        whole = model(torch.tensor([[*ids[0].tolist(), 3]]))
    torch.testing.assert_close(logits, whole[:, -1])


def test_caches_of_single_rows_are_not_released() -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=10)
    dynamic = make_model(rope_scaling=scaling)
    memory, row = RowMemory(dynamic), Row()
    assert memory.begin(row, [], 5, 50)
    memory.end(row)
    assert not memory.release()
