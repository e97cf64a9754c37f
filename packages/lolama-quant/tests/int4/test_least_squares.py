"""Grids found by least squares: their rules, and how near they come to the best."""

import pytest
import torch
from torch import Tensor

from lolama_core.protocols.errors import ModelError
from lolama_quant.grouped.codes import GroupedRows, dequantize_rows, pack
from lolama_quant.int4.least_squares import FORM, quantize_rows


def values(weight: Tensor, importance: Tensor | None = None) -> Tensor:
    return dequantize_rows(quantize_rows(weight, "w", importance), FORM)


def random_weight(outputs: int, inputs: int, seed: int = 0) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * 0.02


def rounded(weight: Tensor) -> Tensor:
    """From the smallest to the largest value of each 32 in 15 steps, with scales that are not rounded."""
    groups = weight.view(len(weight), -1, 32)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = (high - low) / 15
    return (((groups - low) / scale).round() * scale + low).view_as(weight)


@pytest.mark.parametrize("inputs", [1, 31, 32, 33, 64, 192, 256, 300, 512])
def test_any_number_of_inputs(inputs: int) -> None:
    weight = random_weight(5, inputs)
    rows = quantize_rows(weight, "w")
    assert {name: one.shape for name, one in pack(rows, FORM).items()} == {
        name: torch.Size(shape) for name, (_, shape) in FORM.tensors(5, inputs).items()
    }
    assert int(rows.codes.max()) <= 15
    assert rows.scale is not None and rows.minimum is not None
    assert int(rows.scale.max()) <= 63 and int(rows.minimum.max()) <= 63
    error = (dequantize_rows(rows, FORM) - weight).square().mean()
    assert error < 0.01 * weight.square().mean()


def test_loses_less_than_plain_rounding_with_exact_scales() -> None:
    weight = random_weight(64, 512)
    ours = (values(weight) - weight).square().mean()
    theirs = (rounded(weight) - weight).square().mean()
    assert ours < 0.9 * theirs


def test_comes_near_the_best_grid_of_a_group() -> None:
    weight = random_weight(8, 32)
    found = (values(weight) - weight).square().sum(-1)
    scale = torch.linspace(0.0005, 0.012, 200)[:, None, None]
    low = torch.linspace(0, 0.08, 200)[:, None]
    ratios = []
    for row, error in zip(weight, found, strict=True):
        tried = ((row + low) / scale).round().clamp(0, 15) * scale - low
        ratios.append(float(error / (tried - row).square().sum(-1).min()))
    assert sum(ratios) / len(ratios) < 1.1 and max(ratios) < 1.4


def test_inputs_that_count_more_lose_less() -> None:
    weight = random_weight(32, 256)
    importance = torch.ones(256)
    importance[::16] = 100
    plain = (values(weight) - weight).square()[:, ::16].mean()
    weighted = (values(weight, importance) - weight).square()[:, ::16].mean()
    assert weighted < 0.7 * plain


@pytest.mark.parametrize("importance", [torch.zeros(64), torch.full((64,), torch.inf)])
def test_importance_that_says_nothing_is_left_out(importance: Tensor) -> None:
    weight = random_weight(3, 64)
    assert torch.equal(values(weight, importance), values(weight))


def test_rows_do_not_depend_on_each_other() -> None:
    weight = random_weight(600, 512)
    torch.testing.assert_close(values(weight)[450:452], values(weight[450:452]), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_sixteen_bits(dtype: torch.dtype) -> None:
    weight = random_weight(4, 64).to(dtype)
    assert torch.equal(values(weight), values(weight.float()))


def test_row_460_zeros_stay_exact_zeros() -> None:
    weight = random_weight(3, 300)
    weight[1] = 0
    weight[2, 32:64] = 0
    weight[2, 256:] = -0.0
    found = values(weight)
    assert found[1].count_nonzero() == 0
    assert found[2, 32:64].count_nonzero() == 0 and found[2, 256:].count_nonzero() == 0


@pytest.mark.parametrize("value", [0.37, -0.37])
def test_row_460_a_group_of_one_number_keeps_it(value: float) -> None:
    found = values(torch.full((2, 96), value))
    torch.testing.assert_close(found, torch.full((2, 96), value), rtol=1e-3, atol=0)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-20, 1e-7, 1e-4, 1e4, 4e6])
def test_row_461_tiny_and_huge_rows_are_neither_inf_nor_nan(size: float) -> None:
    weight = random_weight(4, 300)
    weight = weight / weight.abs().max() * size
    found = values(weight)
    assert bool(found.isfinite().all())
    # The smallest step of a float16 is 6e-8: what is below is lost.
    assert float((found - weight).abs().max()) <= max(0.1 * size, 1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e9])
def test_row_462_what_no_grid_is_for_is_refused_by_name(value: float) -> None:
    weight = torch.ones(4, 40)
    weight[2, 35] = value
    with pytest.raises(ModelError, match=r"w_up\.weight: holds .* in row 2; "):
        quantize_rows(weight, "w_up.weight")


def test_no_rows_at_all() -> None:
    rows: GroupedRows = quantize_rows(torch.empty(0, 64), "w")
    assert rows.codes.shape == (0, 64)
