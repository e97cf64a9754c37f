"""Triton's product with grouped weights beside torch's with the widened weight (`nox -s triton`).

On a machine with an NVIDIA GPU it runs there, elsewhere in Triton's interpreter.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lolama_core.protocols.grouped import FORMATS
from lolama_core.runtime.fast_products import FastProducts
from lolama_quant.grouped import product
from lolama_quant.grouped.linear import GroupedLinear
from lolama_quant.linear_kernel import NativeLinearKernel

sys.path.insert(0, str(Path(__file__).parents[2] / "grouped"))
from grouped_layers import random_linear

# Triton chooses its interpreter when it is imported, which may have happened before this line.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda"
pytestmark = pytest.mark.skipif(
    (DEVICE == "cpu" and not INTERPRETED) or find_spec("triton") is None,
    reason="runs on a GPU, or in the session `triton`",
)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SIZES = [(1, 1), (7, 31), (33, 256), (20, 300), (70, 1088)]


def by_triton(x: Tensor, layer: GroupedLinear) -> Tensor:
    from lolama_quant.triton.kernels.grouped_products import grouped_rows

    parts = layer.weight, layer.group_scale, layer.block_scale
    return grouped_rows(x, *parts, layer.form.name)


def check(x: Tensor, layer: GroupedLinear) -> None:
    """In the dtype of ``x``: the sums of the same rounded weights, in another order."""
    found, wide = by_triton(x, layer), layer.dequantized().to(x.dtype)
    assert found.dtype == x.dtype
    expected, size = x.double() @ wide.double().T, x.double().abs() @ wide.double().abs().T
    epsilon = torch.finfo(x.dtype).eps
    # A weight next to the middle between two numbers of sixteen bits may be rounded to the other.
    rounding = 0.0 if x.dtype == torch.float32 else epsilon
    assert ((found - expected).abs() <= (1e-6 + rounding) * size).all()
    torch.testing.assert_close(
        found, x @ wide.T, atol=2 * epsilon * float(size.max()), rtol=epsilon
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 16, 17, 130])
@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_is_the_product_with_the_widened_weight(form: str, rows: int, dtype: torch.dtype) -> None:
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies the bit patterns of bfloat16")
    for outputs, inputs in SIZES:
        layer = random_linear(outputs, inputs, form, seed=rows).to(DEVICE)
        check(torch.randn(rows, inputs, device=DEVICE).to(dtype), layer)


@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_no_rows_and_rows_that_are_not_contiguous(form: str) -> None:
    layer = random_linear(6, 70, form).to(DEVICE)
    check(torch.randn(70, 3, device=DEVICE).t(), layer)
    assert by_triton(torch.empty(0, 70, device=DEVICE), layer).shape == (0, 6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_what_is_not_finite_stays_visible_in_its_row(form: str, value: float) -> None:
    x = torch.randn(3, 300, device=DEVICE)
    x[1, 290] = value
    found = by_triton(x, random_linear(4, 300, form).to(DEVICE))
    assert not found[1].isfinite().any() and found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("form", FORMATS)
@torch.inference_mode()
def test_layers_reach_it_and_add_their_bias(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":  # what the interpreter multiplies is not on a GPU
        monkeypatch.setattr(product, "kernel_product", product.cuda_product)
        monkeypatch.setattr(product, "has_triton", lambda: True)
    layer = random_linear(9, 300, form, bias=True).to(DEVICE)
    layer.bias = nn.Parameter(torch.randn(9, device=DEVICE), requires_grad=False)
    x = torch.randn(2, 3, 300, device=DEVICE)
    with FastProducts([layer], [NativeLinearKernel()]):
        found = layer(x)
    expected = by_triton(x.flatten(0, 1), layer) + layer.bias
    assert torch.equal(found, expected.view(2, 3, 9))
