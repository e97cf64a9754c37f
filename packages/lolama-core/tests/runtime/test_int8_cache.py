"""Keys and values in int8: what is stored of them, and what a model then sees."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lolama_core import Engine, KVCache, Llama, PrefixCache, TextGenerator, Tokenizer, load
from lolama_core.generation.scoring import prompt_logits, score
from lolama_core.model.cache_slots import FixedSlots
from lolama_core.model.rope_scaling import RopeScaling
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.runtime.int8_cache import dequantized, quantized, scales_of
from lolama_core.runtime.kernels import Kernels, set_kernels
from lolama_core.runtime.paged_cache import FixedPagedCache, PagedCache, Row
from lolama_core.runtime.pages import PAGE, Pages, position_bytes
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

DYNAMIC = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=32)
LONGROPE = RopeScaling(
    type="longrope",
    factor=2.0,
    original_max_seq_len=32,
    short_factor=(1.0,) * 4,
    long_factor=(2.0,) * 4,
)


def seen(x: Tensor) -> Tensor:
    return dequantized(quantized(x), torch.float32)


def like(rows: int = 1, capacity: int = 1, dtype: torch.dtype = torch.float32) -> KVCache:
    return KVCache(
        num_layers=2, batch_size=rows, num_kv_heads=2, capacity=capacity, head_dim=6, dtype=dtype
    )


def test_a_code_is_the_nearest_multiple_of_a_scale_that_cuts_none_off() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 64) * torch.logspace(-30, 30, 500)[:, None]
    stored = quantized(x)
    codes, scale = stored[:, :-2], scales_of(stored).float()
    assert stored.dtype == torch.int8 and stored.shape == (500, 66)
    exact = x.abs().amax(-1, keepdim=True) / 127
    # At most a bit of bfloat16's eight above the least scale that holds all.
    assert bool((scale >= exact).all()) and bool((scale <= exact * (1 + 2**-7)).all())
    assert bool((codes.int().abs().amax(-1) >= 126).all())
    assert bool(((seen(x) - x).abs() <= scale * 0.5001).all())


def test_what_was_seen_is_stored_as_it_is() -> None:
    """Multiples of a scale of which one is 127 come back, whatever their dtype."""
    codes = torch.randint(-127, 128, (20, 8)).float()
    codes[:, 0] = 127
    for scale in (2.0**-20, 0.75, 3.0, 2.0**80):
        assert torch.equal(seen(codes * scale), codes * scale)
    assert torch.equal(quantized(codes.bfloat16()), quantized(codes))


def test_row_296_numbers_that_no_ordinary_scale_holds() -> None:
    """Zeros, numbers beyond float16, and ones so small that float32 hardly has them."""
    x = torch.tensor(
        [[0.0, -0.0, 0.0], [3.3e38, -1e38, 0.0], [1e-40, -1e-40, 0.0], [1e-45, 0.0, 0.0]]
    )
    found = seen(x)
    assert torch.equal(found[0], torch.zeros(3))
    torch.testing.assert_close(found[1], x[1], rtol=0, atol=3.3e38 / 127)
    torch.testing.assert_close(found[2:], x[2:], rtol=0, atol=1e-40)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_row_296_what_is_not_finite_makes_its_vector_nan(value: float) -> None:
    x = torch.ones(2, 4)
    x[1, 2] = value
    assert seen(x).isnan().all(-1).tolist() == [False, True]
    torch.testing.assert_close(seen(x)[0], x[0], atol=0.01, rtol=0)


def test_row_296_keys_that_are_not_finite_are_an_error(tiny_llama: Callable[..., Llama]) -> None:
    model = tiny_llama()
    model.get_parameter("layers.0.attention.k_proj.weight")[3, 5] = float("inf")
    with pytest.raises(ModelError, match="finite"):
        TextGenerator(model, cache_dtype="int8").generate([3, 4, 5])


@pytest.mark.parametrize("seed", range(4))
def test_a_position_sees_what_is_stored(seed: int) -> None:
    """Passes of any width over any of three rows, beside a cache that is given what int8 makes of all."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    pages, rows = Pages(like(), 40, first=1, cache_dtype="int8"), [Row() for _ in range(3)]
    plain = [like(capacity=500) for _ in range(3)]
    for part in (*pages.keys, *pages.values):
        part.fill_(-1)  # whoever had them before left anything, such as scales that are NaN
    for _ in range(15):
        some = sorted(draw.sample(range(3), draw.choice([1, 1, 2, 3])))
        width = draw.choice([1, 1, 7, 40])
        counts = [draw.randint(1, width) for _ in some]
        paged, others = PagedCache(pages, [rows[i] for i in some]), [plain[i] for i in some]
        slots = paged.reserve(counts, width)
        places = [each.reserve([n], width) for each, n in zip(others, counts, strict=True)]
        for layer in range(2):
            new = torch.randn(2, len(some), 2, width, 6)
            held = paged.update(layer, new[0], new[1], slots)
            for part in held:
                assert part.shape[2] == max(slots.totals) and bool(part.isfinite().all())
            given = seen(new[0]), seen(new[1])
            for row, (each, place) in enumerate(zip(others, places, strict=True)):
                keys, values = (part[row : row + 1] for part in given)
                expected = each.update(layer, keys, values, place)
                for mine, theirs in zip(held, expected, strict=True):
                    assert torch.equal(mine[row, :, : slots.totals[row]], theirs[0])
        paged.advance(counts)
        for each, count in zip(others, counts, strict=True):
            each.advance([count])


def test_a_place_that_a_tensor_tells() -> None:
    """What recorded steps need: the same keys, zeros where nothing was written, a mask of the same dtype."""
    pages = Pages(like(dtype=torch.bfloat16), 4, first=4, cache_dtype="int8")
    row = Row(pages.take(2))
    for part in (*pages.keys, *pages.values):
        part.fill_(-1)
    fixed = FixedPagedCache(pages, torch.tensor([row.pages]), torch.tensor([[5]]))
    slots = fixed.reserve([1], 1)
    assert isinstance(slots, FixedSlots) and slots.dtype == torch.bfloat16
    new = torch.randn(1, 2, 1, 6).bfloat16()
    held, _ = fixed.update(0, new, new, slots)
    assert held.dtype == torch.bfloat16 and held.shape == (1, 2, 2 * PAGE, 6)
    assert torch.equal(held[:, :, 5:6], dequantized(quantized(new), torch.bfloat16))
    assert not held[:, :, 6:].any()


def test_a_page_takes_a_little_more_than_half_of_sixteen_bits() -> None:
    narrow = like(dtype=torch.bfloat16)
    assert position_bytes(narrow) == 2 * 2 * 2 * 6 * 2
    assert position_bytes(narrow, "int8") == 2 * 2 * 2 * (6 + 2)
    assert Pages(narrow, 4, first=4, cache_dtype="int8").page_bytes == PAGE * 64


@pytest.mark.parametrize("kernels", [True, False])
def test_a_limit_of_bytes_holds_as_many_positions_as_it_should(
    tiny_llama: Callable[..., Llama], kernels: bool
) -> None:
    model = tiny_llama(max_seq_len=4096)
    if not kernels:
        set_kernels(model, Kernels())
    of_page = PAGE * position_bytes(model.make_cache(1, 1), "int8")
    memory = RowMemory(runner_of(model), max_bytes=3 * of_page, cache_dtype="int8")
    assert memory.begin(Row(), [], 3 * PAGE, 4096) and not memory.begin(Row(), [], 1, 4096)


@pytest.mark.parametrize("record", [False, True])
def test_steps_over_a_stored_prompt_are_those_of_a_pass(
    tiny_llama: Callable[..., Llama], record: bool
) -> None:
    """Chunks, decoding and recorded steps, beside one pass: to rounding, which may move a code by one."""
    model = tiny_llama(num_layers=1, max_seq_len=256)
    ids = torch.randint(0, model.vocab_size, (1, 90))
    whole = prompt_logits(model, ids[0].tolist(), cache_dtype="int8")
    plain = prompt_logits(model, ids[0].tolist())
    chunks = prompt_logits(model, ids[0].tolist(), 7, cache_dtype="int8")
    torch.testing.assert_close(chunks, whole, atol=1e-4, rtol=0)
    assert 1e-4 < (whole - plain).abs().max() < 0.1
    memory, row = RowMemory(runner_of(model), record=record, cache_dtype="int8"), Row()
    with torch.inference_mode():
        assert memory.begin(row, [], 90, 256)
        memory.run([row], model.embed(ids[:, :80]), [80])
        for place in range(80, 90):
            logits = memory.decode([row], [int(ids[0, place])])
            # A kernel may weigh values by whole numbers of sixteen bits.
            torch.testing.assert_close(logits[0], whole[place], atol=2e-4, rtol=0)


@pytest.mark.parametrize("given", ["int4", "INT8", 8, torch.int8, ""])
def test_row_294_a_cache_dtype_that_there_is_not(
    tiny_llama: Callable[..., Llama], given: Any
) -> None:
    model = tiny_llama()
    for make in (
        lambda: TextGenerator(model, cache_dtype=given),
        lambda: Engine(model, cache_dtype=given),
        lambda: PrefixCache(1000, cache_dtype=given),
        lambda: RowMemory(model, cache_dtype=given),
        lambda: prompt_logits(model, [1, 2], cache_dtype=given),
        lambda: score(model, [1, 2], given),
    ):
        with pytest.raises(UsageError, match=r'^cache_dtype: is .*cache_dtype="int8"'):
            make()


@pytest.mark.parametrize(("scaling", "name"), [(DYNAMIC, "dynamic RoPE"), (LONGROPE, "LongRoPE")])
def test_row_294_a_model_whose_keys_do_not_stay(
    tiny_llama: Callable[..., Llama], scaling: RopeScaling, name: str
) -> None:
    model = tiny_llama(max_seq_len=64, rope_scaling=scaling)
    prefixes = PrefixCache(1000, cache_dtype="int8")
    for make in (
        lambda: TextGenerator(model, cache_dtype="int8"),
        lambda: TextGenerator(model, prefix_cache=prefixes),
        lambda: Engine(model, cache_dtype="int8"),
    ):
        with pytest.raises(UsageError, match=f"for models with {name}, whose"):
            make()


def test_row_294_a_generator_and_its_prefix_cache_agree(tiny_llama: Callable[..., Llama]) -> None:
    model, prefixes = tiny_llama(), PrefixCache(1 << 20)
    with pytest.raises(UsageError, match="give it to PrefixCache"):
        TextGenerator(model, prefix_cache=prefixes, cache_dtype="int8")
    prefixes = PrefixCache(1 << 20, cache_dtype="int8")
    for generator in (
        TextGenerator(model, prefix_cache=prefixes),
        TextGenerator(model, prefix_cache=prefixes, cache_dtype="int8"),
    ):
        generator.generate([3, 4, 5], max_new_tokens=2)
        memory = prefixes.memory_of(runner_of(model))
        assert memory.kept is not None and memory.kept[1].keys[0].dtype == torch.int8


def test_what_the_demo_model_predicts_stays_near(byte_level: Tokenizer) -> None:
    """KL(sixteen bits ‖ int8) of every position of a story, and how often the best token is the same."""
    model, tokenizer = load("demo", device="cpu")
    story = TextGenerator(model, tokenizer).generate(
        "Once upon a time", max_new_tokens=300, temperature=0.7, seed=1, ignore_eos=True
    )
    ids = [*tokenizer.encode_ids("Once upon a time"), *story.ids]
    before, after = (
        prompt_logits(model, ids, cache_dtype=dtype).double().log_softmax(-1)
        for dtype in (None, "int8")
    )
    divergence = (before.exp() * (before - after)).sum(-1)
    assert 1e-7 < divergence.mean() < 1e-3
    assert (before.argmax(-1) == after.argmax(-1)).double().mean() > 0.98
