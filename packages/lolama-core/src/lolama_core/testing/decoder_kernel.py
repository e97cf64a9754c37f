"""What every `DecoderKernel` must do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core.model.config import LlamaConfig
from lolama_core.model.kv_cache import KVCache
from lolama_core.model.llama import Llama
from lolama_core.protocols import CacheSlots, CausalLM, DecoderKernel
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import Pages, pages_for
from lolama_core.runtime.runner import Runner
from lolama_core.testing.switches import SWITCHED

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 48,
    "num_heads": 6,
    "num_kv_heads": 2,
    "num_layers": 3,
    "hidden_dim": 100,
    "max_seq_len": 1024,
}
SHAPES: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "one head of keys": {"num_kv_heads": 1},
    "as many heads of keys": {"num_kv_heads": 6},
    "wide heads": {"head_dim": 34},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "biases of q, k and v": {"attention_bias": "qkv"},
    "sliding window": {"sliding_window": 7},
    "large epsilon": {"eps": 0.5},
}


def run_by(kernel: DecoderKernel, model: Llama) -> Runner:
    """``model`` with all its blocks run by ``kernel``, and nothing else by any."""
    runner = Runner(model, Kernels(decoder=[kernel]))
    assert (list(runner.native), runner.reasons) == ([0], {})
    return runner


@torch.inference_mode()
def logits_of_row(
    model: CausalLM,
    ids: Tensor,
    chunk: int,
    rows: int = 1,
    cache_dtype: CacheDtype | None = None,
) -> Tensor:
    """All logits (T, V) of ``ids`` (1, T), taken ``chunk`` by chunk as the last of some rows.

    The others hold something before, and get fewer positions at a time: in chunks of one each gets one. With
    a ``cache_dtype`` they are in pages.
    """
    width, last = ids.shape[1], rows - 1
    starts = [*(1 + 37 * row % 90 for row in range(last)), 0]
    cache: Any = model.make_cache(rows, max(starts) + width)
    if cache_dtype is not None:
        pages = Pages(cache, rows * pages_for(max(starts) + width), cache_dtype=cache_dtype)
        cache = PagedCache(pages, [Row() for _ in range(rows)])
    if last:
        before = torch.randint(0, model.vocab_size, (rows, max(starts)))
        model.forward_embeds(model.embed(before), cache, [max(1, start) for start in starts])
        cache.advance(starts)
    logits = []
    for part in torch.split(ids, chunk, dim=1):
        counts = [*(1 + row % part.shape[1] for row in range(last)), part.shape[1]]
        new = torch.randint(0, model.vocab_size, (rows, part.shape[1]))
        new[last] = part[0]
        logits.append(model.forward_embeds(model.embed(new), cache, counts, "all")[last])
        cache.advance(counts)
    return torch.cat(logits)


class PagedCopy(KVCache):
    """A copy of another cache, for a kernel alone: in pages of ``size`` positions that lie in any order.

    A head has all its pages behind one another, and then comes the next head.
    """

    def __init__(self, cache: KVCache, size: int) -> None:
        rows, needed = cache.batch_size, -(-cache.capacity // size)
        layers = [cache.write_in_place(cache.reserve([1] * rows, 1))[part] for part in (0, 1)]
        _, heads, capacity, width = layers[0][0].shape
        super().__init__(
            num_layers=len(layers[0]),
            batch_size=rows,
            num_kv_heads=heads,
            capacity=capacity,
            head_dim=width,
            dtype=cache.dtype,
        )
        self.advance(cache.lengths)
        order = torch.randperm(rows * needed, generator=torch.Generator().manual_seed(size))
        self.pages = order.view(rows, needed)
        self._parts = tuple([self._paged(layer, size) for layer in part] for part in layers)

    def _paged(self, layer: Tensor, size: int) -> Tensor:
        """(B, K, capacity, hd) → (pages, K, size, hd)."""
        rows, heads, capacity, width = layer.shape
        needed = self.pages.shape[1]
        whole = layer.new_zeros(rows, heads, needed * size, width)
        whole[:, :, :capacity] = layer
        stored = layer.new_empty(heads, rows * needed, size, width)
        # (B, K, needed, size, hd) → (K, B, needed, size, hd)
        stored[:, self.pages] = whole.view(rows, heads, needed, size, width).transpose(0, 1)
        return stored.transpose(0, 1)

    def write_in_place(self, slots: CacheSlots) -> tuple[list[Tensor], list[Tensor]]:
        """See `KVCache`."""
        keys, values = self._parts
        return keys, values

    def read_row(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """See `KVCache`."""
        keys, values = self._parts
        return [
            (self._of_row(row, own_keys), self._of_row(row, own_values))
            for own_keys, own_values in zip(keys, values, strict=True)
        ]

    def _of_row(self, row: int, part: Tensor) -> Tensor:
        """(pages, K, size, hd) → (K, length, hd)."""
        return part[self.pages[row]].transpose(0, 1).flatten(1, 2)[:, : self.lengths[row]]


class DecoderKernelSuite:
    """Subclass it and define the fixture ``kernel``. Compares with the model itself, without kernels."""

    @pytest.fixture
    def kernel(self) -> DecoderKernel:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def model(self, dtype: torch.dtype = torch.float32, **shape: Any) -> Llama:
        """A random model: linears of ``dtype``, norms and biases float32, none of them trivial."""
        torch.manual_seed(0)
        model = Llama(LlamaConfig(**{**SHAPE, **shape})).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(1.0, 0.3)
            else:
                parameter.data = parameter.data.to(dtype)
        return model

    @torch.inference_mode()
    def compare(
        self, kernel: DecoderKernel, model: Llama, prompts: list[int], steps: int, tolerance: float
    ) -> None:
        """Both ways from the same prompts: the same activations and the same cache."""
        longest, fast = max(prompts), run_by(kernel, model)
        ids = torch.randint(0, model.vocab_size, (len(prompts), longest))
        cache = model.make_cache(len(prompts), longest + steps)
        model.forward_embeds(model.embed(ids), cache, prompts)
        cache.advance(prompts)
        caches = [cache, copy.deepcopy(cache)]
        for step in range(steps):
            tokens = torch.randint(0, model.vocab_size, (len(prompts), 1))
            results = []
            runs: list[CausalLM] = [model, fast]
            for cache, one in zip(caches, runs, strict=True):
                results.append(one.forward_embeds(model.embed(tokens), cache))
                cache.advance([1] * len(prompts))
            torch.testing.assert_close(
                results[1], results[0], atol=tolerance, rtol=tolerance, msg=f"step {step}"
            )
        self._same_cache(caches, tolerance)

    def _same_cache(self, caches: list[KVCache], tolerance: float) -> None:
        for row in range(caches[0].batch_size):
            for one, other in zip(caches[0].read_row(row), caches[1].read_row(row), strict=True):
                torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)

    @torch.inference_mode()
    def compare_prompts(
        self, kernel: DecoderKernel, model: Llama, prompts: list[int], tolerance: float
    ) -> None:
        """Prompts from nothing, what follows them, and a step: the same logits and the same cache.

        Padding is compared with nothing; ``tolerance`` is relative to the largest logit.
        """
        rows, more = len(prompts), [min(5, length) for length in prompts]
        ids = torch.randint(0, model.vocab_size, (rows, max(prompts) + 6))
        caches, results = [], []
        for one in (model, run_by(kernel, model)):
            cache = model.make_cache(rows, max(prompts) + 6)
            parts = [one.forward_embeds(model.embed(ids[:, :-6]), cache, prompts)]
            cache.advance(prompts)
            all_logits = one.forward_embeds(model.embed(ids[:, -6:-1]), cache, more, "all")
            parts += [row[:count] for row, count in zip(all_logits, more, strict=True)]
            cache.advance(more)
            parts.append(one.forward_embeds(model.embed(ids[:, -1:]), cache))
            results.append(torch.cat(parts))
            caches.append(cache)
        largest = results[0].abs().max().item()
        torch.testing.assert_close(results[1], results[0], atol=tolerance * largest, rtol=0)
        self._same_cache(caches, 1 if tolerance > 1e-3 else 1e-4)

    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize("prompts", [[40], [2], [3, 70, 1], [65, 64]])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_prompts(
        self, kernel: DecoderKernel, name: str, prompts: list[int], dtype: torch.dtype
    ) -> None:
        """Prompts may have different lengths, where the kernel takes prompts."""
        model = self.model(dtype, **SHAPES[name])
        if dtype not in run_by(kernel, model).native[0].step.prompt_dtypes:
            pytest.skip("takes no prompts of this dtype")
        self.compare_prompts(kernel, model, prompts, 1e-5 if dtype == torch.float32 else 0.03)

    @pytest.mark.parametrize("name", SHAPES)
    def test_equals_the_blocks(self, kernel: DecoderKernel, name: str) -> None:
        """Every shape that a configuration can ask for."""
        self.compare(kernel, self.model(**SHAPES[name]), [9], 4, 1e-5)

    @pytest.mark.parametrize("length", [255, 256, 257, 700])
    def test_long_contexts(self, kernel: DecoderKernel, length: int) -> None:
        """More positions than any kernel looks at in one go."""
        self.compare(kernel, self.model(), [length], 2, 1e-5)

    def test_from_nothing(self, kernel: DecoderKernel) -> None:
        """The first position of all."""
        model = self.model()
        with torch.inference_mode():
            tokens = torch.tensor([[7]])
            expected = model(tokens)[:, -1]
            cache = model.make_cache(1, 4)
            result = run_by(kernel, model).forward_embeds(model.embed(tokens), cache)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)

    def test_rows_of_different_lengths(self, kernel: DecoderKernel) -> None:
        """Each row at its own place, as alone."""
        model = self.model()
        if run_by(kernel, model).native[0].step.max_rows < 2:
            pytest.skip("takes one row")
        self.compare(kernel, model, [5, 11], 3, 1e-5)

    @pytest.mark.parametrize("size", [3, 32])
    @pytest.mark.parametrize("name", ["grouped heads", "one head of keys", "sliding window"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @torch.inference_mode()
    def test_pages_change_nothing(
        self, kernel: DecoderKernel, dtype: torch.dtype, name: str, size: int
    ) -> None:
        """The same bits wherever the pages of a row are: steps, and what follows if it takes prompts."""
        model = self.model(dtype, **SHAPES[name])
        fast = run_by(kernel, model)
        step = fast.native[0].step
        prompts = [131, 5, 60][: step.max_rows]
        ids = torch.randint(0, model.vocab_size, (len(prompts), max(prompts)))
        whole = model.make_cache(len(prompts), max(prompts) + 80)
        model.forward_embeds(model.embed(ids), whole, prompts)
        whole.advance(prompts)
        paged = PagedCopy(whole, size)
        for width in (1, 70) if dtype in step.prompt_dtypes else (1,):
            counts = [width, *[max(1, width // 2)] * (len(prompts) - 1)]
            new = model.embed(torch.randint(0, model.vocab_size, (len(prompts), width)))
            expected = fast.forward_embeds(new, whole, counts)
            assert torch.equal(fast.forward_embeds(new, paged, counts), expected)
            whole.advance(counts)
            paged.advance(counts)
        for row in range(len(prompts)):
            for one, other in zip(paged.read_row(row), whole.read_row(row), strict=True):
                assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])

    @pytest.mark.parametrize("name", SHAPES)
    @torch.inference_mode()
    def test_what_is_beside_a_position_changes_nothing(
        self, kernel: DecoderKernel, name: str
    ) -> None:
        """The same bits in chunks and among other rows as position by position, if the kernel says so."""
        model = self.model(**SHAPES[name], vocab_size=SHAPE["d_model"])
        # Logits then are what the blocks make, normed: a product with ones and zeros rounds nothing.
        model.lm_head.weight.copy_(torch.eye(SHAPE["d_model"]))
        fast = run_by(kernel, model)
        if not fast.native[0].step.fixed_order:
            pytest.skip("takes sums in another order for more positions")
        ids = torch.randint(0, model.vocab_size, (1, 140))
        alone = logits_of_row(fast, ids, 1)
        for chunk, rows in ((7, 1), (64, 1), (140, 1), (45, 3), (45, 20)):
            assert torch.equal(logits_of_row(fast, ids, chunk, rows), alone), (chunk, rows)
        assert torch.equal(logits_of_row(fast, ids[:, :20], 1, 9), alone[:20])

    @pytest.mark.parametrize("name", [*SHAPES, "heads of 64", "heads of 80"])
    @torch.inference_mode()
    def test_keys_and_values_in_int8(self, kernel: DecoderKernel, name: str) -> None:
        """The same logits and codes as the blocks: steps, and prompts and chunks if it takes them.

        Of one block, since another order of sums may move a code, which the next one would see.
        """
        wide = {"heads of 64": {"head_dim": 64}, "heads of 80": {"head_dim": 80}}
        model = self.model(num_layers=1, **(SHAPES | wide)[name])
        fast = run_by(kernel, model)
        step = fast.native[0].step
        if torch.int8 not in step.cache_dtypes:
            pytest.skip("takes no keys and values of int8")
        prompts = [140, 3, 77][: step.max_rows]
        counts = (
            [45, 1, 31][: step.max_rows] if torch.int8 in step.prompt_dtypes else [1] * len(prompts)
        )
        ids = torch.randint(0, model.vocab_size, (len(prompts), 140 + 45 + 3))
        first = fast if torch.int8 in step.prompt_dtypes else model
        stored, results = [], []
        for one, begins in ((model, model), (fast, first)):
            pages = Pages(model.make_cache(1, 1), 40, cache_dtype="int8")
            rows = [Row() for _ in prompts]
            cache = PagedCache(pages, rows)
            logits = [begins.forward_embeds(model.embed(ids[:, :140]), cache, prompts)]
            cache.advance(prompts)
            for place in (140, 141, 142):
                logits.append(one.forward_embeds(model.embed(ids[:, place : place + 1]), cache))
                cache.advance([1] * len(rows))
            embeds = model.embed(ids[:, 143 : 143 + max(counts)])
            for row, count in zip(
                one.forward_embeds(embeds, cache, counts, "all"), counts, strict=True
            ):
                logits.append(row[:count])
            cache.advance(counts)
            results.append(torch.cat(logits))
            used = [page for row in rows for page in row.pages]
            stored.append(torch.stack((pages.keys[0][used], pages.values[0][used])).int())
        torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=0)
        moved = (stored[1] - stored[0]).abs()
        assert (moved > 0).float().mean() < 1e-3 and moved[..., :-2].max() <= 1

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_sixteen_bits(self, kernel: DecoderKernel, dtype: torch.dtype) -> None:
        """Weights and cache in sixteen bits: within what rounding the activations changes."""
        self.compare(kernel, self.model(dtype), [9], 3, 0.15)

    @pytest.mark.parametrize("name", SWITCHED)
    @torch.inference_mode()
    def test_switches_are_known_or_declined(self, kernel: DecoderKernel, name: str) -> None:
        """The logits of the model, in prompts, steps and rows, whichever of its blocks the kernel takes."""
        model = self.model(**SWITCHED[name])
        fast = Runner(model, Kernels(decoder=[kernel]))
        lengths, ids = [23, 9], torch.randint(0, model.vocab_size, (2, 30))
        found: list[Tensor] = []
        expected: list[Tensor] = []
        ways: list[tuple[CausalLM, list[Tensor]]] = [(model, expected), (fast, found)]
        for one, logits in ways:
            cache = model.make_cache(2, 40)
            logits.append(one.forward_embeds(model.embed(ids[:, :23]), cache, lengths))
            cache.advance(lengths)
            for place in range(23, 30):
                embeds = model.embed(ids[:, place : place + 1])
                logits.append(one.forward_embeds(embeds, cache))
                cache.advance([1, 1])
        torch.testing.assert_close(torch.cat(found), torch.cat(expected), atol=1e-4, rtol=1e-4)

    def test_refuses_what_it_is_not_for(self, kernel: DecoderKernel) -> None:
        """Weights on no device, or of a dtype that nobody computes in."""
        with torch.device("meta"):
            empty = Llama(LlamaConfig(**SHAPE))
        for model in (empty, self.model().to(torch.float64)):
            assert not Runner(model, Kernels(decoder=[kernel])).native
