"""Absmax quantization against its definition, and rows that have no proper scale."""

import pytest
import torch

from lolama_core.protocols.errors import ModelError
from lolama_quant.int8.absmax import LIMIT, dequantize_rows, quantize_rows, quantize_weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_off_by_half_a_scale_at_most(dtype: torch.dtype) -> None:
    rows = torch.randn(37, 101, generator=torch.manual_seed(0)).to(dtype)
    quantized = quantize_rows(rows)
    assert quantized.values.dtype == torch.int8 and quantized.scale.dtype == torch.float32
    error = (dequantize_rows(quantized).double() - rows.double()).abs()
    assert bool((error <= quantized.scale[:, None].double() * 0.5001).all())


def test_the_largest_value_of_each_row_is_127() -> None:
    quantized = quantize_rows(torch.tensor([[1.0, -2.0, 0.5], [-300.0, 299.0, 0.0]]))
    assert quantized.values.tolist() == [[64, -127, 32], [-127, 127, 0]]
    torch.testing.assert_close(quantized.scale, torch.tensor([2 / LIMIT, 300 / LIMIT]))


def test_row_77_a_zero_row_gives_exact_zeros() -> None:
    quantized = quantize_rows(torch.tensor([[0.0, -0.0, 0.0], [1.0, 2.0, 3.0]]))
    assert quantized.values[0].tolist() == [0, 0, 0]
    assert bool((quantized.scale > 0).all())
    assert dequantize_rows(quantized)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_row_78_nan_and_inf_are_refused_by_name(value: float) -> None:
    weight = torch.ones(4, 8)
    weight[2, 5] = value
    with pytest.raises(ModelError, match=r"w_up\.weight: holds NaN or Inf, in row 2; "):
        quantize_weight(weight, "w_up.weight")


@pytest.mark.parametrize("size", [1e-45, 1e-42, 1e-39, 1e-37, 1e-30])
def test_row_79_tiny_rows_are_neither_inf_nor_nan(size: float) -> None:
    rows = torch.tensor([[size, -size / 2, 0.0]])
    quantized = quantize_rows(rows)
    assert quantized.scale[0] >= torch.finfo(torch.float32).tiny
    found = dequantize_rows(quantized)
    assert bool(found.isfinite().all())
    assert float((found - rows).abs().max()) <= max(float(quantized.scale[0]), size / LIMIT) * 0.51


def test_row_79_the_largest_rows_have_a_scale_too() -> None:
    largest = torch.finfo(torch.float32).max
    quantized = quantize_rows(torch.tensor([[largest, -largest]]))
    assert quantized.values.tolist() == [[127, -127]]
    assert bool(quantized.scale.isfinite().all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_not_finite_stays_so(value: float) -> None:
    quantized = quantize_rows(torch.tensor([[1.0, value]]))
    assert not bool(dequantize_rows(quantized).isfinite().all())
