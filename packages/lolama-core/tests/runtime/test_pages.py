"""Pages are taken, shared and given back; a cache in pages is a cache."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor

from lolama_core import KVCache
from lolama_core.runtime import pages as pages_module
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import PAGE, NoPages, Pages, pages_for

LIMIT = 20


def like(rows: int = 1, capacity: int = 1, heads: int = 2, width: int = 3) -> KVCache:
    return KVCache(
        num_layers=2, batch_size=rows, num_kv_heads=heads, capacity=capacity, head_dim=width
    )


class PagesAgainstCounts(RuleBasedStateMachine):
    """Whatever is done, each page is had by as many as took it or share it and did not give it back."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = Pages(like(), LIMIT, first=3)
        self.uses: Counter[int] = Counter()

    def had(self) -> list[int]:
        return sorted(page for page, uses in self.uses.items() if uses)

    @rule(count=st.integers(0, 8), data=st.data())
    def take(self, count: int, data: st.DataObject) -> None:
        after = data.draw(st.none() | st.sampled_from(self.had())) if self.had() else None
        left = LIMIT - len(self.had())
        if count > left:
            with pytest.raises(NoPages):
                self.pages.take(count, after)
            return
        taken = self.pages.take(count, after)
        assert len(set(taken)) == count and not {*taken} & {*self.had()}
        assert all(0 <= page < LIMIT for page in taken)
        if count and after is not None and after + 1 < len(self.pages.keys[0]):
            assert (taken[0] == after + 1) == (after + 1 not in self.had())
        self.uses.update(taken)

    @precondition(lambda self: self.had())
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(self.had()))
        self.pages.share([page])
        self.uses[page] += 1

    @precondition(lambda self: self.had())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        given = data.draw(st.lists(st.sampled_from(self.had()), unique=True))
        self.pages.give_back(given)
        self.uses.subtract(given)

    @invariant()
    def what_is_left_is_what_nobody_has(self) -> None:
        assert self.pages.left == LIMIT - len(self.had())
        # Keys and values, layers, heads, positions, width, float32.
        page_bytes = 2 * 2 * 2 * PAGE * 3 * 4
        assert self.pages.used_bytes == len(self.had()) * page_bytes
        assert len(self.pages.keys[0]) <= LIMIT


PagesAgainstCounts.TestCase.settings = settings(max_examples=30, deadline=None)
TestPagesAgainstCounts = PagesAgainstCounts.TestCase


def test_growing_keeps_what_is_there() -> None:
    pages = Pages(like(), 9, first=2)
    for page in pages.take(2):
        pages.keys[1][page] = page + 1.0
    assert sorted(pages.take(7)) == [*range(2, 9)]
    assert [pages.keys[1][page].mean().item() for page in (0, 1)] == [1.0, 2.0]
    with pytest.raises(NoPages, match="1 pages are needed, and 0 are left"):
        pages.take(1)


def test_growing_goes_on_where_memory_did_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    pages, made, calls = Pages(like(), 4, first=2), pages_module._memory, iter(range(99))

    def full_once(like: Sequence[Tensor], count: int) -> list[Tensor]:
        if next(calls) == 1:
            raise MemoryError
        return made(like, count)

    for page in pages.take(2):
        pages.values[1][page] = page + 1.0
    monkeypatch.setattr(pages_module, "_memory", full_once)
    with pytest.raises(MemoryError):
        pages.take(1)
    assert sorted(pages.take(2)) == [2, 3]
    assert [pages.values[1][page].mean().item() for page in (0, 1)] == [1.0, 2.0]


def test_rows_that_grow_stay_in_one_piece() -> None:
    """As long as there is room: a row begins where much is free behind it, and in front of it too."""
    pages = Pages(like(), 64)
    rows = [Row() for _ in range(4)]
    for length in range(PAGE, 8 * PAGE, PAGE):
        for row in rows:
            cache = PagedCache(pages, [row])
            cache.reserve([PAGE], PAGE)
            cache.advance([PAGE])
            assert len(row.pages) == pages_for(length)
    assert all(row.pages == [*range(row.pages[0], row.pages[0] + 7)] for row in rows)


def test_row_285_rows_that_follow_each_other_take_pages_that_were_touched() -> None:
    """A system counts what was touched, so a long chat would take more and more."""
    pages, held, touched = Pages(like(), 2000), list[list[int]](), set[int]()
    for count in [13, 5, 20, 9] * 100:
        held.append(pages.take(count))
        touched.update(held[-1])
        if len(held) == 3:
            pages.give_back(held.pop(0))
    assert len(touched) < 3 * (13 + 20 + 9)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_not_touched_takes_no_memory() -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as status:
            return int(status.read().split()[1]) * 4096

    before = resident()
    pages = Pages(like(heads=8, width=128), 16_000)  # 4 GB of address space
    (page,) = pages.take(1)
    pages.keys[0][page] = 1
    assert resident() - before < 100e6
    assert len(pages.keys[0]) * pages.keys[0][0].nbytes > 1e9


LIMITED = """
import resource, sys
import torch
from lolama_core import KVCache
from lolama_core.runtime.pages import Pages

like = KVCache(num_layers=4, batch_size=1, num_kv_heads=8, capacity=1, head_dim=64)
Pages(like, 1)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
left = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (held + left, -1))
pages = Pages(like, 1_000_000)  # 524 GB of address space
taken = pages.take(pages.left)
pages.keys[3][taken[-1]] = 1
rest = bytearray(left // 4)
print(len(taken) * pages.page_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="has no such limit")
@pytest.mark.parametrize("left", [64 << 20, 1 << 30])
def test_row_283_of_little_address_space_half_is_taken(left: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(left)], capture_output=True, text=True, check=True
    )
    assert left / 4 - 2**20 < int(done.stdout) <= left / 2


def test_without_memory_for_one_page_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(MemoryError, match="Cannot allocate memory"):
        Pages(like(), 5)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_released_takes_no_memory() -> None:
    """And it can be taken, and written to, again."""

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as status:
            return int(status.read().split()[1]) * 4096

    pages = Pages(like(heads=8, width=64), 1000)
    before, taken = resident(), pages.take(1000)
    for part in (*pages.keys, *pages.values):
        part.fill_(1.0)
    size = 1000 * pages.page_bytes
    assert resident() - before > 0.9 * size
    pages.give_back(taken)
    assert pages.release()
    assert resident() - before < 0.1 * size
    [page] = pages.take(1)
    pages.keys[1][page] = 3.0
    assert pages.keys[1][page].mean().item() == 3.0


def test_pages_that_grow_are_not_released() -> None:
    pages = Pages(like(), 8, first=1)
    pages.give_back(pages.take(5))
    assert not pages.release()
