from __future__ import annotations

import pytest
import torch

from lolama_core import KVCache, Llama, TextGenerator, load, runner_of
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.errors import UsageError
from lolama_core.testing.kv_cache import KVCacheSuite


def make_cache() -> KVCache:
    return KVCache(num_layers=1, batch_size=3, num_kv_heads=1, capacity=8, head_dim=2)


class TestKVCache(KVCacheSuite):
    @pytest.fixture
    def cache(self) -> KVCache:
        return make_cache()


class FourMembers:
    """All that a model needs of a cache, and no more."""

    def __init__(self, inner: KVCache) -> None:
        self.reserve, self.update, self.advance = inner.reserve, inner.update, inner.advance
        self._inner = inner

    @property
    def lengths(self) -> tuple[int, ...]:
        return self._inner.lengths


@pytest.fixture
def model() -> Llama:
    return load("demo", device="cpu", dtype="float32")[0]


@torch.inference_mode()
def test_a_model_runs_on_any_cache_with_the_four_members(model: Llama) -> None:
    ids = torch.tensor([[1, 5, 9, 13]])
    outputs = []
    for runs in (model, runner_of(model)):
        own = model.make_cache(1, 8)
        for cache in (own, FourMembers(model.make_cache(1, 8))):
            assert isinstance(cache, KVCacheProtocol)
            runs.forward_embeds(model.embed(ids[:, :3]), cache)
            cache.advance([3])
            outputs.append(runs.forward_embeds(model.embed(ids[:, 3:]), cache))
    for logits in outputs[1:]:
        torch.testing.assert_close(logits, outputs[0], atol=1e-4, rtol=1e-4)


def test_row_242_generation_refuses_a_cache_that_it_cannot_keep(
    model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cache = model.make_cache
    monkeypatch.setattr(model, "make_cache", lambda *sizes: FourMembers(make_cache(*sizes)))
    refused = (
        "make_cache: makes a FourMembers, which generation cannot keep or share; let it make a "
        "lolama_core.KVCache"
    )
    for prompts in ([[1, 2, 3]], [[1, 2, 3], [4, 5]]):
        with pytest.raises(UsageError) as raised:
            TextGenerator(model).generate_batch(prompts, max_new_tokens=2)
        assert str(raised.value) == refused
    with pytest.raises(UsageError) as raised:
        list(TextGenerator(model).generate_stream([1, 2, 3], max_new_tokens=2))
    assert str(raised.value) == refused
