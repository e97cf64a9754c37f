from __future__ import annotations

import pytest

from lolama_core import KVCache
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.testing.kv_cache import KVCacheSuite, numbered


def make_cache(keep_inputs: int = 0) -> KVCache:
    return KVCache(
        num_layers=1, batch_size=3, num_kv_heads=1, capacity=8, head_dim=2, keep_inputs=keep_inputs
    )


class TestKVCache(KVCacheSuite):
    @pytest.fixture
    def cache(self) -> KVCacheProtocol:
        return make_cache()

    def test_growing_keeps_what_is_held(self) -> None:
        cache = make_cache()
        self.fill(cache, [8, 8, 8])
        view = cache.rows([1])
        cache.grow(12)
        assert (cache.capacity, view.capacity) == (12, 12)
        self.fill(cache, [2, 2, 2], start=20)
        assert self.held(cache, 1) == [*range(101, 109), 120, 121]
        cache.grow(4)
        assert cache.capacity == 12


class TestKVCacheThatKeepsInputs(KVCacheSuite):
    @pytest.fixture
    def cache(self) -> KVCacheProtocol:
        return make_cache(keep_inputs=4)


def test_remembers_inputs_of_all_positions() -> None:
    cache = make_cache(keep_inputs=2)
    cache.remember_inputs(numbered(3, cache, start=3)[:, 0], cache.reserve([3] * 3, 3))
    cache.advance([3] * 3)
    history = cache.remember_inputs(numbered(2, cache, start=2)[:, 0], cache.reserve([2] * 3, 2))
    assert history[1, :, 0].tolist() == [103, 104, 105, 102, 103]


def test_knows_which_positions_have_no_keys_yet() -> None:
    cache = make_cache(keep_inputs=2)
    new = numbered(2, cache)
    cache.update(0, new, new, cache.reserve([2] * 3, 2))
    cache.advance([2] * 3)
    assert cache.is_written_before(cache.reserve([1] * 3, 1))
    cache.advance([1] * 3)  # a position whose inputs alone were kept
    assert not cache.is_written_before(cache.reserve([1] * 3, 1))
    cache.truncate([2] * 3)
    assert cache.is_written_before(cache.reserve([1] * 3, 1))


def test_rows_are_stable_unless_they_are_rotated_anew() -> None:
    assert make_cache().stable
    assert not make_cache(keep_inputs=2).stable
