from __future__ import annotations

import pytest

from lolama_core import KVCache
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.testing.kv_cache import KVCacheSuite


def make_cache() -> KVCache:
    return KVCache(num_layers=1, batch_size=3, num_kv_heads=1, capacity=8, head_dim=2)


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
