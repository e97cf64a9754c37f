"""Products with grouped weights by torch's operators: rounded activations, and the way to kernels."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lolama_core.protocols.grouped import FORMATS
from lolama_core.runtime.fast_products import FastProducts
from lolama_quant.cpu import grouped_linear
from lolama_quant.cpu.library import native_library
from lolama_quant.grouped.product import (
    blockwise_product,
    cuda_product,
    grouped_product,
    widened_product,
)
from lolama_quant.grouped.rounded_blocks import round_blocks
from lolama_quant.linear_kernel import NativeLinearKernel

sys.path.insert(0, str(Path(__file__).parent))
from grouped_layers import random_linear


def test_bytes_are_rounded_twice_where_a_block_is_heavy() -> None:
    x = torch.randn(3, 600)
    x[1, 300] = 50
    rounded = round_blocks(x, FORMATS["int4"])
    step = x.view(3, -1)[0, :256].abs().max() / 127
    assert (rounded[0, :256] - x[0, :256]).abs().max() <= step * 0.501
    assert (rounded[1, 256:512] - x[1, 256:512]).abs().max() <= 50 / 127 / 127
    assert (rounded[2] - x[2]).abs().max() > 50 / 127 / 127


def test_pairs_have_eleven_bits() -> None:
    x = torch.randn(3, 600)
    error = (round_blocks(x, FORMATS["int8_16"]) - x).abs().max()
    assert 0 < error <= x.abs().max() / 2000 * 0.501


def test_blocks_of_nothing_and_of_what_is_no_number() -> None:
    x = torch.randn(2, 512)
    x[0, :256], x[1, 3] = 1e-38, float("nan")
    for form in FORMATS.values():
        rounded = round_blocks(x, form)
        assert rounded[0, :256].eq(0).all() and rounded[1, :256].isnan().all()
        assert rounded[:, 256:].isfinite().all()


@pytest.mark.parametrize("form", FORMATS)
def test_a_large_weight_is_dequantized_some_outputs_at_a_time(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = random_linear(50, 300, form)
    arguments = torch.randn(4, 300), linear.weight, linear.group_scale, linear.block_scale, form
    whole = blockwise_product(*arguments)
    monkeypatch.setattr("lolama_quant.grouped.product._BLOCK_ELEMENTS", 2000)
    assert (blockwise_product(*arguments) - whole).norm() <= 1e-5 * whole.norm()


@pytest.mark.skipif(isinstance(native_library(), str), reason="there is no native library")
def test_kernels_take_it_where_products_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, calls = random_linear(50, 300, "int4"), []

    def counted(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        return torch.zeros(4, 50)

    monkeypatch.setattr(grouped_linear, "native_grouped", counted)
    x = torch.randn(4, 300)
    with torch.inference_mode():
        plain = linear(x)
        with FastProducts([linear], [NativeLinearKernel()]):
            assert linear(x).eq(0).all()
    assert len(calls) == 1 and plain.ne(0).any()


def test_without_the_library_it_is_torchs_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lolama_quant.grouped.product.native_library", lambda: "not built")
    linear = random_linear(5, 64, "int4_32")
    x = torch.randn(3, 64)
    with torch.inference_mode():
        arguments = x, linear.weight, linear.group_scale, linear.block_scale, "int4_32"
        with FastProducts([linear], [NativeLinearKernel()]):
            assert torch.equal(linear(x), grouped_product(*arguments))


@pytest.mark.parametrize("has_triton", [False, True])
@pytest.mark.parametrize(
    ("dtype", "rows", "taken"),
    [
        (torch.bfloat16, 1, True),
        (torch.float16, 400, True),
        (torch.float32, 16, True),
        (torch.float32, 17, False),
        (torch.float64, 1, False),
    ],
)
def test_what_triton_takes_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, rows: int, taken: bool, has_triton: bool
) -> None:
    """What it does not take is widened. Here neither Triton nor a GPU is needed."""
    kernel = SimpleNamespace(grouped_rows=lambda *arguments: arguments)
    monkeypatch.setitem(sys.modules, "lolama_quant.triton.kernels.grouped_products", kernel)
    monkeypatch.setattr("lolama_quant.grouped.product.has_triton", lambda: has_triton)
    layer, x = random_linear(5, 64, "int4"), torch.randn(rows, 64).to(dtype)
    arguments = x, layer.weight, layer.group_scale, layer.block_scale, "int4"
    found = cuda_product(*arguments)
    if taken and has_triton:
        assert isinstance(found, tuple) and all(
            map(lambda *both: both[0] is both[1], found, arguments)
        )
    else:
        assert torch.equal(found, widened_product(*arguments)) and found.dtype == dtype
