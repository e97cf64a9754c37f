"""A cache in pages is a cache, whether the host knows where its rows are or only the device."""

from __future__ import annotations

import random

import pytest
import torch

from lolama_core import KVCache
from lolama_core.model.cache_slots import FixedSlots
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.runtime.paged_cache import FixedPagedCache, PagedCache, Row
from lolama_core.runtime.pages import PAGE, NoPages, Pages


def like(rows: int = 1, capacity: int = 1, heads: int = 2, width: int = 3) -> KVCache:
    return KVCache(
        num_layers=2, batch_size=rows, num_kv_heads=heads, capacity=capacity, head_dim=width
    )


def test_it_is_a_cache() -> None:
    assert isinstance(PagedCache(Pages(like(), 4), [Row()]), KVCacheProtocol)


@pytest.mark.parametrize("seed", range(6))
def test_it_holds_what_a_cache_of_rows_holds(seed: int) -> None:
    """Passes of any width over any of five rows, which take pages in turns and so apart from each other."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    pages, rows = Pages(like(), 80, first=1), [Row() for _ in range(5)]
    plain = [like(capacity=500) for _ in range(5)]
    for part in (*pages.keys, *pages.values):
        part.fill_(float("nan"))  # whoever had them before left anything
    for _ in range(25):
        some = sorted(draw.sample(range(5), draw.choice([1, 1, 2, 5])))
        width = draw.choice([1, 1, 7, 40])
        counts = [draw.randint(1, width) for _ in some]
        paged, others = PagedCache(pages, [rows[i] for i in some]), [plain[i] for i in some]
        assert paged.lengths == tuple(each.lengths[0] for each in others)
        slots = paged.reserve(counts, width)
        places = [each.reserve([n], width) for each, n in zip(others, counts, strict=True)]
        assert slots.starts == tuple(each.starts[0] for each in places)
        assert slots.totals == tuple(each.totals[0] for each in places)
        for layer in range(2):
            new = torch.randn(2, len(some), 2, width, 3)
            held = paged.update(layer, new[0], new[1], slots)
            for part in held:
                assert part.shape[2] == max(slots.totals) and bool(part.isfinite().all())
            given = new[0], new[1]
            for row, (each, place) in enumerate(zip(others, places, strict=True)):
                keys, values = (part[row : row + 1] for part in given)
                expected = each.update(layer, keys, values, place)
                for mine, theirs in zip(held, expected, strict=True):
                    assert torch.equal(mine[row, :, : slots.totals[row]], theirs[0])
        if draw.random() < 0.8:  # else the pass was abandoned
            paged.advance(counts)
            for each, count in zip(others, counts, strict=True):
                each.advance([count])


def test_a_row_in_one_piece_is_seen_where_it_is() -> None:
    pages, row = Pages(like(), 8), Row()
    cache = PagedCache(pages, [row])
    keys, _ = cache.update(
        1, torch.ones(1, 2, 70, 3), torch.ones(1, 2, 70, 3), cache.reserve([70], 70)
    )
    assert keys.data_ptr() == pages.keys[1][row.pages[0]].data_ptr()


def test_too_few_pages_change_nothing() -> None:
    pages, rows = Pages(like(), 3), [Row(), Row()]
    cache = PagedCache(pages, rows)
    cache.reserve([40, 1], 40)
    cache.advance([32, 1])
    with pytest.raises(NoPages):
        cache.reserve([1, 32], 32)
    assert (cache.lengths, [len(row.pages) for row in rows]) == ((32, 1), [2, 1])
    cache.reserve([32, 31], 32)


@pytest.mark.parametrize("seed", range(4))
def test_places_in_tensors_are_those_that_the_host_would_know(seed: int) -> None:
    """Pages in any order, of rows of any length, up to the last place of a page."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    pages, other = Pages(like(), 40), Pages(like(), 40)
    for part in (*pages.keys, *pages.values, *other.keys, *other.values):
        part.fill_(float("nan"))  # whoever had them before left anything
    lengths = [0, PAGE - 1, PAGE, 3 * PAGE - 1, draw.randrange(4 * PAGE)]
    free = draw.sample(range(40), 40)
    rows = [Row([free.pop() for _ in range(length // PAGE + 1)], length) for length in lengths]
    for memory in (pages, other):
        for part in (*memory.keys, *memory.values):
            for row in rows:
                for place in range(row.length):
                    part[row.pages[place // PAGE], :, place % PAGE] = float(place)
    width = 8
    table = torch.tensor([row.pages + [0] * (width - len(row.pages)) for row in rows])
    positions = torch.tensor(lengths)[:, None]
    fixed, plain = FixedPagedCache(pages, table, positions), PagedCache(other, rows)
    slots, expected_slots = fixed.reserve([1] * 5, 1), plain.reserve([1] * 5, 1)
    assert isinstance(slots, FixedSlots) and slots.capacity == width * PAGE
    for layer in range(2):
        new = torch.randn(2, 5, 2, 1, 3)
        held = fixed.update(layer, new[0], new[1], slots)
        expected = plain.update(layer, new[0], new[1], expected_slots)
        for mine, theirs in zip(held, expected, strict=True):
            assert mine.shape == (5, 2, width * PAGE, 3)
            for place, length in enumerate(lengths):
                assert torch.equal(mine[place, :, : length + 1], theirs[place, :, : length + 1])
                assert not mine[place, :, length + 1 :].any()
    assert all(
        torch.equal(mine.nan_to_num(7), theirs.nan_to_num(7))
        for mine, theirs in zip(
            (*pages.keys, *pages.values), (*other.keys, *other.values), strict=True
        )
    )


def test_tensors_are_read_when_a_step_runs() -> None:
    """Not when it is made: a recorded step is replayed with whatever they hold then."""
    pages = Pages(like(), 4)
    for part in (*pages.keys, *pages.values):
        part.fill_(0.0)
    table, positions = torch.tensor([[0, 1]]), torch.tensor([[0]])
    cache = FixedPagedCache(pages, table, positions)
    assert isinstance(cache, KVCacheProtocol)
    slots, one = cache.reserve([1], 1), torch.ones(1, 2, 1, 3)
    table.copy_(torch.tensor([[3, 2]]))
    positions.fill_(PAGE + 5)
    keys, values = cache.update(1, one, 2 * one, slots)
    assert pages.keys[1][2, :, 5].eq(1).all() and pages.keys[1].sum() == 6
    assert keys[0, :, PAGE + 5].eq(1).all() and keys.sum() == 6
    assert values[0, :, PAGE + 5].eq(2).all() and values.sum() == 12
    assert not pages.keys[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 3])
def test_a_position_sees_its_row_up_to_itself(dtype: torch.dtype, window: int | None) -> None:
    made = KVCache(num_layers=1, batch_size=1, num_kv_heads=1, capacity=1, head_dim=2, dtype=dtype)
    positions = torch.tensor([[0], [4], [PAGE]])
    cache = FixedPagedCache(Pages(made, 4), torch.tensor([[0, 0], [1, 0], [2, 3]]), positions)
    mask = cache.reserve([1] * 3, 1).mask(window)
    assert (mask.shape, mask.dtype) == ((3, 1, 1, 2 * PAGE), dtype)
    seen = [row.eq(0).nonzero()[:, 0].tolist() for row in mask[:, 0, 0]]
    assert bool((mask.eq(0) | mask.isneginf()).all())
    first = [0, 0, 0] if window is None else [0, 2, PAGE - 2]
    assert seen == [[*range(a, b + 1)] for a, b in zip(first, [0, 4, PAGE], strict=True)]


def test_one_position_a_row_is_all_that_a_fixed_step_has() -> None:
    cache = FixedPagedCache(
        Pages(like(), 2), torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[0]])
    )
    for counts, width in (([2], 2), ([0], 1)):
        with pytest.raises(AssertionError):
            cache.reserve(counts, width)
