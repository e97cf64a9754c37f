"""What the `KVCache` of core and every subclass of it must do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lolama_core.model.kv_cache import KVCache
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.errors import UsageError


def numbered(count: int, cache: KVCache, start: int = 1, heads: int = 1, width: int = 2) -> Tensor:
    """(B, heads, count, width): row b, position p holds 100·b + start + p everywhere."""
    rows = torch.arange(cache.batch_size)[:, None, None, None] * 100.0
    places = torch.arange(start, start + count)[None, None, :, None]
    return (rows + places).expand(-1, heads, -1, width).contiguous()


class KVCacheSuite:
    """Subclass it and define the fixture ``cache``.

    It must be empty, with 3 rows, room for 8 positions, one layer, one head, two dimensions, float32.
    """

    @pytest.fixture
    def cache(self) -> KVCache:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def fill(self, cache: KVCache, counts: list[int], start: int = 1) -> tuple[Tensor, Tensor]:
        """Write numbered positions, ``counts[b]`` of them in row b, and advance."""
        width = max(counts)
        slots = cache.reserve(counts, width)
        new = numbered(width, cache, start)
        keys, values = cache.update(0, new, -new, slots)
        cache.advance(counts)
        return keys, values

    def held(self, cache: KVCache, row: int) -> list[float]:
        """The numbers that row holds, seen through a pass that adds one position."""
        counts = [0] * cache.batch_size
        counts[row] = 1
        keys, _ = cache.update(
            0, numbered(1, cache, 77), numbered(1, cache, 77), cache.reserve(counts, 1)
        )
        held: list[float] = keys[row, 0, : cache.lengths[row], 0].tolist()
        return held

    def test_is_a_cache(self, cache: KVCache) -> None:
        """It has every member of the protocol, and starts empty."""
        assert isinstance(cache, KVCacheProtocol)
        assert (cache.batch_size, cache.capacity, cache.lengths) == (3, 8, (0, 0, 0))

    def test_returns_what_was_written(self, cache: KVCache) -> None:
        """Keys and values come back as given, in float32 to the bit."""
        keys, values = self.fill(cache, [2, 2, 2])
        assert torch.equal(keys, numbered(2, cache))
        assert torch.equal(values, -keys)

    def test_rows_have_their_own_length(self, cache: KVCache) -> None:
        """Padding is not kept; the next positions follow each row's own."""
        self.fill(cache, [3, 1, 2])
        assert cache.lengths == (3, 1, 2)
        slots = cache.reserve([1, 1, 1], 1)
        assert slots.starts == (3, 1, 2)
        assert slots.totals == (4, 2, 3)
        assert slots.positions.tolist() == [[3], [1], [2]]
        self.fill(cache, [1, 1, 1], start=50)
        assert self.held(cache, 0) == [1, 2, 3, 50]
        assert self.held(cache, 1) == [101, 150]
        assert self.held(cache, 2) == [201, 202, 250]

    def test_a_pass_that_is_not_advanced_changes_nothing(self, cache: KVCache) -> None:
        """Writing is not keeping."""
        self.fill(cache, [2, 1, 2])
        cache.update(0, numbered(3, cache, 60), numbered(3, cache, 60), cache.reserve([3, 3, 3], 3))
        assert cache.lengths == (2, 1, 2)
        assert self.held(cache, 1) == [101]

    @pytest.mark.parametrize("counts", [[9, 1, 1], [1, 1, 9]])
    def test_one_past_the_end_is_refused(self, cache: KVCache, counts: list[int]) -> None:
        """A write past the capacity raises, with both numbers, and changes nothing."""
        with pytest.raises(UsageError, match=r"9 .* 8"):
            cache.reserve(counts, 9)
        self.fill(cache, [8, 8, 8])
        with pytest.raises(UsageError, match=r"9 .* 8"):
            cache.reserve([0, 1, 0], 1)
        assert cache.lengths == (8, 8, 8)

    def test_truncate_forgets_the_end(self, cache: KVCache) -> None:
        """What remains is what was there first."""
        self.fill(cache, [4, 4, 4])
        cache.truncate([4, 2, 0])
        assert cache.lengths == (4, 2, 0)
        assert self.held(cache, 1) == [101, 102]
        with pytest.raises(UsageError):
            cache.truncate([5, 2, 0])

    def test_a_row_can_be_read_and_written_elsewhere(self, cache: KVCache) -> None:
        """What `read_row` gives is the row, cut to its length."""
        self.fill(cache, [3, 1, 2])
        [(keys, values)] = cache.read_row(2)
        assert keys.tolist() == [[[201, 201], [202, 202]]]
        assert torch.equal(values, -keys)
        cache.truncate([3, 0, 2])
        padded = keys.expand(3, -1, -1, -1)
        cache.update(0, padded, padded, cache.reserve([0, 2, 0], 2))
        cache.advance([0, 2, 0])
        assert cache.lengths == (3, 2, 2)
        assert self.held(cache, 1) == [201, 202]

    def test_reset_leaves_nothing_behind(self, cache: KVCache) -> None:
        """Not even a NaN stays; a mask would not stop it, since 0 · NaN is NaN."""
        slots = cache.reserve([2, 2, 2], 2)
        poison = torch.full((3, 1, 2, 2), float("nan"))
        cache.update(0, poison, poison, slots)
        cache.advance([2, 2, 2])
        cache.reset()
        assert cache.lengths == (0, 0, 0)
        keys, values = cache.update(
            0, numbered(3, cache), numbered(3, cache), cache.reserve([3, 0, 0], 3)
        )
        assert bool(keys.isfinite().all() and values.isfinite().all())
