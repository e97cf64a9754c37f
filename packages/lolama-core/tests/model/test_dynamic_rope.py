"""The cache of dynamic RoPE. What models make of it is compared with transformers in the parity tests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lolama_core import Llama, LlamaConfig, RopeScaling
from lolama_core.model.dynamic_rope import DynamicCache
from lolama_core.protocols import CacheSlots, KVCache
from lolama_core.protocols.errors import ModelError
from lolama_core.testing.kv_cache import KVCacheSuite, numbered


def make_cache(width: int = 2, *, settles: bool = False) -> DynamicCache:
    return DynamicCache(
        limit=6,
        width=width,
        settles=settles,
        num_layers=1,
        batch_size=3,
        num_kv_heads=1,
        capacity=8,
        head_dim=2,
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


def test_longrope_runs_a_row_anew_once() -> None:
    """When it passes the original length, and when it has been cut back below that."""
    scaling = RopeScaling(
        type="longrope",
        factor=4.0,
        original_max_seq_len=6,
        short_factor=(1.0, 2.0),
        long_factor=(3.0, 4.0),
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        d_model=8,
        num_heads=2,
        num_layers=2,
        hidden_dim=16,
        max_seq_len=24,
        rope_scaling=scaling,
    )
    model, ids = Llama(config).eval(), torch.randint(0, 20, (1, 20))
    cache, widths = model.make_cache(1, 24), []
    run_blocks = model.run_blocks

    def counted(x: Tensor, slots: CacheSlots, cache: KVCache | None) -> Tensor:
        widths.append(x.shape[1])
        return run_blocks(x, slots, cache)

    model.run_blocks = counted  # type: ignore[method-assign]
    with torch.inference_mode():
        for start, end in ((0, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 12), (12, 13)):
            found = model.forward_embeds(model.embed(ids[:, start:end]), cache)
            cache.advance([end - start])
            torch.testing.assert_close(found, Llama.forward(model, ids[:, :end])[:, -1])
            widths.pop()
        assert widths == [4, 1, 1, 7, 1, 4, 1]
        cache.truncate([4])
        found = model.forward_embeds(model.embed(ids[:, 4:5]), cache)
        assert widths.pop() == 5
        torch.testing.assert_close(found, Llama.forward(model, ids[:, :5])[:, -1])


@pytest.mark.parametrize(("settles", "name"), [(False, "dynamic RoPE"), (True, "LongRoPE")])
def test_what_changes_its_keys_has_the_name_that_errors_tell(settles: bool, name: str) -> None:
    cache = make_cache(settles=settles)
    assert cache.changed_by == name
    slots = replace(cache.reserve([3] * 3, 3), spans=(((0, 2),),) * 3)
    with pytest.raises(ModelError, match=f"has {name}, so positions of a picture cannot see"):
        cache.run(lambda x, slots, cache: x, torch.zeros(3, 3, 2), slots)
