"""The cache of dynamic RoPE. What models make of it is compared with transformers in the parity tests."""

from __future__ import annotations

import pytest

from lolama_core.model.dynamic_rope import DynamicCache
from lolama_core.testing.kv_cache import KVCacheSuite, numbered


def make_cache(width: int = 2) -> DynamicCache:
    return DynamicCache(
        limit=6, width=width, num_layers=1, batch_size=3, num_kv_heads=1, capacity=8, head_dim=2
    )


class TestDynamicCache(KVCacheSuite):
    @pytest.fixture
    def cache(self) -> DynamicCache:
        return make_cache(width=4)


def test_remembers_inputs_of_all_positions() -> None:
    cache = make_cache()
    cache.remember_inputs(numbered(3, cache, start=3)[:, 0], cache.reserve([3] * 3, 3))
    cache.advance([3] * 3)
    history = cache.remember_inputs(numbered(2, cache, start=2)[:, 0], cache.reserve([2] * 3, 2))
    assert history[1, :, 0].tolist() == [103, 104, 105, 102, 103]


def test_knows_which_positions_have_no_keys_yet() -> None:
    cache = make_cache()
    new = numbered(2, cache)
    cache.update(0, new, new, cache.reserve([2] * 3, 2))
    cache.advance([2] * 3)
    assert cache.is_written_before(cache.reserve([1] * 3, 1))
    cache.advance([1] * 3)  # a position whose inputs alone were kept
    assert not cache.is_written_before(cache.reserve([1] * 3, 1))
    cache.truncate([2] * 3)
    assert cache.is_written_before(cache.reserve([1] * 3, 1))


def test_rows_are_not_stable() -> None:
    assert not make_cache().stable
