"""The native decoding step: equal to the blocks on every instruction set this processor has."""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch

from lolama_core.protocols import DecoderKernel
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.runtime.kernels import Kernels
from lolama_core.runtime.runner import Runner
from lolama_core.testing.decoder_kernel import (
    SHAPES,
    DecoderKernelSuite,
    logits_of_row,
    run_by,
)
from lolama_core.testing.switches import SWITCHED
from lolama_quant.cpu import decoder
from lolama_quant.cpu.decoder import NativeDecoderKernel
from lolama_quant.cpu.library import INSTRUCTION_SETS, NativeLibrary, native_library
from lolama_quant.int8.quantizer import Int8Quantizer
from lolama_quant.linear_kernel import NativeLinearKernel

KERNEL: DecoderKernel = NativeDecoderKernel()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
pytestmark = pytest.mark.skipif(
    isinstance(native_library(), str), reason=f"no native library: {native_library()}"
)


class TestNativeDecoderKernel(DecoderKernelSuite):
    @pytest.fixture
    def kernel(self) -> DecoderKernel:
        return KERNEL


def test_is_found_by_its_name() -> None:
    (found,) = entry_points(group="lolama.decoder_kernels", name="native")
    assert found.load() is NativeDecoderKernel


def on(instruction_set: int) -> NativeLibrary:
    """The library, limited to an instruction set."""
    library = native_library()
    assert isinstance(library, NativeLibrary)
    return dataclasses.replace(library, instruction_set=instruction_set)


def usable_sets() -> list[int]:
    library = native_library()
    if isinstance(library, str):
        return []
    best = INSTRUCTION_SETS[library.instruction_set]
    return {"portable": [0], "AVX2": [0, 1], "AVX-512": [0, 1, 2], "NEON": [0, 3]}[best]


@pytest.mark.parametrize("instruction_set", usable_sets())
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_instruction_set(
    monkeypatch: pytest.MonkeyPatch, instruction_set: int, name: str, threads: int
) -> None:
    monkeypatch.setattr(decoder, "native_library", lambda: on(instruction_set))
    suite, before = DecoderKernelSuite(), torch.get_num_threads()
    # Wide enough that threads are worth it.
    shape: dict[str, Any] = {"d_model": 252, "hidden_dim": 700, **SHAPES[name]}
    torch.set_num_threads(threads)
    try:
        suite.compare(KERNEL, suite.model(**shape), [300], 3, 2e-5)
        suite.compare(KERNEL, suite.model(**shape), [3, 280, 9], 2, 2e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("instruction_set", usable_sets())
@pytest.mark.parametrize("name", SWITCHED)
@torch.inference_mode()
def test_switches_on_every_instruction_set(
    monkeypatch: pytest.MonkeyPatch, instruction_set: int, name: str
) -> None:
    """It knows all of them, and a position is the same alone and among others."""
    monkeypatch.setattr(decoder, "native_library", lambda: on(instruction_set))
    model = DecoderKernelSuite().model(vocab_size=48, **SWITCHED[name])
    model.lm_head.weight.copy_(torch.eye(48))
    fast = Runner(model, Kernels(decoder=[KERNEL]))
    assert fast.reasons == {}
    ids = torch.randint(0, 48, (1, 100))
    expected = logits_of_row(model, ids, 100)
    alone = logits_of_row(fast, ids, 1)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
    for chunk, rows in ((7, 1), (100, 1), (45, 3)):
        assert torch.equal(logits_of_row(fast, ids, chunk, rows), alone), (chunk, rows)


@pytest.mark.parametrize("name", SWITCHED)
@pytest.mark.parametrize("prompts", [[40], [3, 70, 1]])
def test_prompts_with_switches_in_sixteen_bits(name: str, prompts: list[int]) -> None:
    suite = DecoderKernelSuite()
    model = suite.model(torch.bfloat16, **SWITCHED[name])
    fast = Runner(model, Kernels(decoder=[KERNEL]))
    if torch.bfloat16 not in fast.native[0].step.prompt_dtypes:
        pytest.skip("takes no prompts of this dtype")
    ids = torch.randint(0, model.vocab_size, (len(prompts), max(prompts)))
    results = []
    for one in (model, fast):
        cache = model.make_cache(len(prompts), max(prompts))
        with torch.inference_mode():
            results.append(one.forward_embeds(model.embed(ids), cache, prompts))
    largest = results[0].abs().max().item()
    torch.testing.assert_close(results[1], results[0], atol=0.04 * largest, rtol=0)


@pytest.mark.parametrize("instruction_set", usable_sets())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_computed_with_in_float32(
    monkeypatch: pytest.MonkeyPatch, instruction_set: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(decoder, "native_library", lambda: on(instruction_set))
    suite = DecoderKernelSuite()
    model = suite.model(dtype)
    # The same weights, widened, and a cache of the narrow dtype: nothing else is rounded.
    wide = suite.model()
    wide.load_state_dict({name: t.float() for name, t in model.state_dict().items()})
    prompt, token = torch.randint(0, 50, (1, 20)), torch.tensor([[4]])
    results = []
    with torch.inference_mode():
        for one in (model, wide):
            fast = run_by(KERNEL, one)
            cache = model.make_cache(1, 24)
            for start in range(20):  # one by one, so that the kernel runs the prompt as well
                fast.forward_embeds(one.embed(prompt[:, start : start + 1]), cache)
                cache.advance([1])
            results.append(fast.forward_embeds(one.embed(token), cache))
    head = model.lm_head.weight.float()
    assert results[0].shape == (1, len(head))
    torch.testing.assert_close(results[0], results[1], atol=2e-4, rtol=2e-4)


@pytest.mark.skipif(2 not in usable_sets(), reason="needs AVX-512")
@pytest.mark.parametrize("heads", [5, 6, 7, 8, 14])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("shape", [{}, {"sliding_window": 37}])
def test_many_heads_that_share_a_key_differ_by_rounding_alone(
    monkeypatch: pytest.MonkeyPatch, heads: int, head_dim: int, shape: dict[str, int]
) -> None:
    """Their queries and weights of values are multiplied in bfloat16, as keys and values are kept."""
    suite, results = DecoderKernelSuite(), []
    sizes = {"num_heads": 2 * heads, "num_kv_heads": 2, "head_dim": head_dim, "num_layers": 1}
    model = suite.model(torch.bfloat16, **sizes, **shape)
    ids = torch.randint(0, 50, (7, 300))
    lengths = [1, 17, 126, 127, 128, 142, 299]  # with the next token a tile and its remainders
    for instruction_set in (1, 2):
        library = on(instruction_set)
        monkeypatch.setattr(decoder, "native_library", lambda library=library: library)
        with torch.inference_mode():
            cache = model.make_cache(7, 300)
            model.forward_embeds(model.embed(ids), cache, lengths)
            cache.advance(lengths)
            results.append(run_by(KERNEL, model).forward_embeds(model.embed(ids[:, :1]), cache))
    largest = results[0].abs().max().item()
    torch.testing.assert_close(results[1], results[0], atol=0.01 * largest, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cache_is_rounded_as_torch_rounds(dtype: torch.dtype) -> None:
    edges = torch.tensor([0.0, 6e-8, 2.9e-8, 3e-8, 65504.0, 65519.0, 65520.0, 7e4])
    magnitudes = torch.cat((edges, torch.logspace(-9, 4.7, 504)))
    # Adding 0 leaves no -0: a bias that is added to nothing gives none either.
    values = torch.cat((magnitudes, -magnitudes)) + 0.0
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    for chunk in torch.split(values, 16):
        assert torch.equal(stored_value(chunk, dtype).view(bits), chunk.to(dtype).view(bits))


def stored_value(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What the step stores as values when v_proj's bias says so and its weight says nothing."""
    model = DecoderKernelSuite().model(num_layers=1, attention_bias="qkv")
    projection = model.get_submodule("layers.0.attention.v_proj")
    projection.get_parameter("weight").zero_()
    projection.get_parameter("bias").copy_(values)
    cache = type(model.make_cache(1, 2))(
        num_layers=1, batch_size=1, num_kv_heads=2, capacity=2, head_dim=8, dtype=dtype
    )
    with torch.inference_mode():
        run_by(KERNEL, model).forward_embeds(model.embed(torch.tensor([[3]])), cache)
    cache.advance([1])
    return cache.read_row(0)[0][1][:, 0].flatten()


def multiplies_bfloat16() -> bool:
    library = native_library()
    return isinstance(library, NativeLibrary) and library.tiled is not None


def takes_prompts() -> bool:
    library = native_library()
    return isinstance(library, NativeLibrary) and (library.has_panels or multiplies_bfloat16())


PROMPT_SHAPES: dict[str, dict[str, Any]] = {
    **SHAPES,
    "heads of 80": {"head_dim": 80},
    "heads of 128": {"head_dim": 128},
    "more heads than a block of queries": {"num_heads": 100, "num_kv_heads": 1, "head_dim": 10},
}


@pytest.mark.skipif(not takes_prompts(), reason="this processor leaves prompts to the blocks")
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", PROMPT_SHAPES)
def test_prompts_are_as_exact_as_the_blocks(name: str, threads: int, int8: bool) -> None:
    """Beside float32 with the same weights: bfloat16 as well as torch's, int8 as well as the blocks'."""
    suite, before = DecoderKernelSuite(), torch.get_num_threads()
    shape: dict[str, Any] = {"d_model": 252, "hidden_dim": 500, **PROMPT_SHAPES[name]}
    if "num_heads" in PROMPT_SHAPES[name]:
        shape["d_model"] = 200
    model, exact = suite.model(torch.bfloat16, **shape), suite.model(**shape)
    exact.load_state_dict({name: t.float() for name, t in model.state_dict().items()})
    if int8:
        Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    prompts = [200, 1, 70]
    ids = torch.randint(0, 50, (3, 206))
    torch.set_num_threads(threads)
    try:
        results = []
        fast = run_by(KERNEL, model)
        assert torch.bfloat16 in fast.native[0].step.prompt_dtypes
        for one in (exact, Runner(model, Kernels(linear=[NativeLinearKernel()])), fast):
            cache = one.make_cache(3, 206)
            with torch.inference_mode():
                last = one.forward_embeds(one.embed(ids[:, :200]), cache, prompts)
                cache.advance(prompts)
                more = one.forward_embeds(one.embed(ids[:, 200:]), cache, logits="all")
            results.append(torch.cat((last, more.flatten(0, 1))))
    finally:
        torch.set_num_threads(before)
    size = results[0].norm()
    errors = [((result - results[0]).norm() / size).item() for result in results[1:]]
    assert errors[1] < 1.2 * errors[0] < 0.02


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor does not multiply bfloat16")
def test_heads_that_are_too_wide_and_other_caches_are_left_to_the_blocks() -> None:
    suite = DecoderKernelSuite()
    for model in (suite.model(torch.bfloat16, head_dim=130), suite.model(torch.float16)):
        assert not run_by(KERNEL, model).native[0].step.prompt_dtypes


def test_row_104_a_weight_that_is_the_negative_of_its_memory_is_left_to_the_blocks() -> None:
    for name in ("ffn_norm.weight", "attention.q_proj.weight"):
        model = DecoderKernelSuite().model(torch.float32)
        parameter = model.layers[1].get_parameter(name)
        parameter.data = torch._neg_view(parameter.data)
        assert not Runner(model, Kernels(decoder=[KERNEL])).native


def test_describes_itself() -> None:
    assert KERNEL.describe().endswith(" of int8")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("rows", [1, 3])
def test_int8(name: str, rows: int) -> None:
    """Blocks and kernel round activations alike, so they differ by the order of additions alone.

    Which may still round an activation to the other side, by one 127th of the largest in its group.
    """
    suite = DecoderKernelSuite()
    model = suite.model(**SHAPES[name])
    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    suite.compare(KERNEL, model, [9, 5, 7][:rows], 3, 2e-2)


def test_int8_of_wide_layers_on_two_threads() -> None:
    suite, before = DecoderKernelSuite(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = suite.model(d_model=252, hidden_dim=700)
        Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
        suite.compare(KERNEL, model, [9, 5], 3, 2e-2)
    finally:
        torch.set_num_threads(before)


def test_int8_with_outlier_columns_or_some_dense_linears_takes_those_blocks_one_by_one() -> None:
    name = "layers.1.feed_forward.w_down"
    schemes = [
        QuantizationScheme(name="int8", outlier_columns={name: (3, 17)}),
        QuantizationScheme(name="int8", skipped=("lm_head", name)),
    ]
    for scheme in schemes:
        model = DecoderKernelSuite().model()
        Int8Quantizer().quantize_(model, scheme)
        runner = Runner(model, Kernels(decoder=[KERNEL]))
        assert (list(runner.native), list(runner.reasons)) == ([0, 2], [1])
