"""Metal's product with grouped weights beside float64: its text compiled for the host, without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lolama_core.protocols.grouped import FORMATS
from lolama_core.runtime.fast_products import FastProducts
from lolama_quant.grouped import product
from lolama_quant.grouped.linear import GroupedLinear
from lolama_quant.linear_kernel import NativeLinearKernel
from lolama_quant.metal.grouped_linear import grouped_rows

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "grouped"))
from grouped_layers import random_linear
from metal_host import NO_COMPILER, on_host

pytestmark = NO_COMPILER
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
INPUTS = [1, 8, 31, 32, 33, 47, 64, 95, 256, 257, 300, 512, 767, 1088]


def by_metal(x: Tensor, layer: GroupedLinear) -> Tensor:
    parts = layer.weight, layer.group_scale, layer.block_scale
    with on_host():
        return grouped_rows(x, *parts, layer.form.name)


def check(x: Tensor, layer: GroupedLinear) -> None:
    """The sums are float32's, and the dtype of ``x`` rounds what comes of them, once."""
    found, wide = by_metal(x, layer), layer.dequantized().double()
    assert found.dtype == x.dtype
    expected, size = x.double() @ wide.T, x.double().abs() @ wide.abs().T
    epsilon = 0.0 if x.dtype == torch.float32 else torch.finfo(x.dtype).eps
    error = (found.double() - expected).abs()
    assert (error <= 1e-6 * size + epsilon * expected.abs() + 1e-7).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_equals_the_float64_product(form: str, rows: int, dtype: torch.dtype) -> None:
    for inputs in INPUTS:
        layer = random_linear(1 + inputs % 11, inputs, form, seed=rows)
        check(torch.randn(rows, inputs).to(dtype), layer)


@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_rows_that_are_not_contiguous_and_negated_ones(form: str) -> None:
    layer = random_linear(6, 70, form)
    check(torch.randn(70, 3).t(), layer)
    check(torch.randn(3, 70, dtype=torch.complex64).conj().imag, layer)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_what_is_not_finite_stays_visible_in_its_row(
    form: str, dtype: torch.dtype, value: float
) -> None:
    for place in (0, 290, 299):
        x = torch.randn(3, 300).to(dtype)
        x[1, place] = value
        found = by_metal(x, random_linear(4, 300, form))
        assert not found[1].isfinite().any() and found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it(form: str) -> None:
    layer, x = random_linear(6, 300, form), torch.randn(11, 300)
    together = by_metal(x, layer)
    assert all(
        torch.equal(by_metal(x[row : row + 1], layer)[0], together[row]) for row in range(11)
    )


@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_layers_reach_it_for_few_rows_and_add_their_bias(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the host multiplies is not on an Apple GPU.
    monkeypatch.setattr(product, "kernel_product", product.metal_product)
    layer = random_linear(9, 300, form, bias=True)
    layer.bias = nn.Parameter(torch.randn(9), requires_grad=False)
    x = torch.randn(2, 32, 300)
    with on_host(), FastProducts([layer], [NativeLinearKernel()]):
        found, more = layer(x), layer(torch.cat((x, x)))
    expected = by_metal(x.flatten(0, 1), layer) + layer.bias
    assert torch.equal(found, expected.view(2, 32, 9))
    assert product.METAL_ROWS == 64
    wide = nn.functional.linear(torch.cat((x, x)).flatten(0, 1), layer.dequantized()) + layer.bias
    assert torch.equal(more, wide.view(4, 32, 9))


def test_a_tensor_on_an_apple_gpu_comes_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class There:
        device = torch.device("mps")

    called = []
    monkeypatch.setattr(product, "metal_product", lambda *arguments: called.append(arguments))
    product.kernel_product(There(), None, None, None, "int4")  # type: ignore[arg-type]
    assert len(called) == 1
