"""A cache in pages is a cache."""

from __future__ import annotations

import random

import pytest
import torch

from lolama_core import KVCache
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import NoPages, Pages


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
    plain = like(rows=5, capacity=500)
    for part in (*pages.keys, *pages.values):
        part.fill_(float("nan"))  # whoever had them before left anything
    for _ in range(25):
        some = sorted(draw.sample(range(5), draw.choice([1, 1, 2, 5])))
        width = draw.choice([1, 1, 7, 40])
        counts = [draw.randint(1, width) for _ in some]
        paged, other = PagedCache(pages, [rows[i] for i in some]), plain.rows(some)
        assert paged.lengths == other.lengths
        slots, expected_slots = paged.reserve(counts, width), other.reserve(counts, width)
        assert isinstance(expected_slots, type(slots))
        assert (slots.starts, slots.totals) == (expected_slots.starts, expected_slots.totals)
        for layer in range(2):
            new = torch.randn(2, len(some), 2, width, 3)
            held = paged.update(layer, new[0], new[1], slots)
            expected = other.update(layer, new[0], new[1], expected_slots)
            for mine, theirs in zip(held, expected, strict=True):
                assert mine.shape == theirs.shape and bool(mine.isfinite().all())
                for row, total in enumerate(slots.totals):
                    assert torch.equal(mine[row, :, :total], theirs[row, :, :total])
        if draw.random() < 0.8:  # else the pass was abandoned
            paged.advance(counts)
            other.advance(counts)


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
