"""Layers of grouped weights: their products, rows by id, and what conversions do to them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

from lolama_core.protocols.decoder_kernel import HasLinearWeights
from lolama_core.protocols.grouped import FORMATS
from lolama_quant.grouped.linear import GroupedLinear

sys.path.insert(0, str(Path(__file__).parent))
from grouped_layers import random_embedding, random_linear

SIZES = [(5, 7), (33, 64), (40, 320), (9, 1000)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("form", FORMATS)
def test_it_multiplies_with_what_the_weight_stands_for(form: str, size: tuple[int, int]) -> None:
    linear = random_linear(*size, form, bias=True)
    x = torch.randn(2, 3, size[1])
    wanted = x @ linear.dequantized().T + linear.bias
    found = linear(x)
    assert found.shape == wanted.shape and found.dtype == x.dtype
    # Activations are rounded, to 8 bits where codes have 4.
    tolerance = 0.03 if FORMATS[form].bits == 4 else 0.003
    assert (found - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize("form", FORMATS)
def test_any_dtype_and_layout(form: str) -> None:
    linear = random_linear(6, 70, form)
    x = torch.randn(70, 3).t()
    assert linear(x.half()).dtype == torch.float16
    torch.testing.assert_close(linear(x), linear(x.contiguous()))
    assert linear(torch.empty(0, 70)).shape == (0, 6)


@pytest.mark.parametrize("form", FORMATS)
def test_gradients_reach_its_input_and_not_the_weight(form: str) -> None:
    linear = random_linear(6, 70, form, bias=True)
    x = torch.randn(2, 70, requires_grad=True)
    linear(x).sum().backward()
    torch.testing.assert_close(x.grad, linear.dequantized().sum(0).expand(2, -1))
    assert not any(parameter.requires_grad for parameter in linear.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_not_finite_stays_visible(form: str, value: float) -> None:
    x = torch.randn(3, 300)
    x[1, 290] = value
    found = random_linear(4, 300, form)(x)
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("form", FORMATS)
def test_conversions_pass_the_weight_by(form: str) -> None:
    linear = random_linear(6, 70, form, bias=True)
    before = copy.deepcopy(linear)
    linear.to(torch.bfloat16)
    assert linear.bias is not None and linear.bias.dtype == torch.bfloat16
    for name in ("weight", "group_scale", "block_scale"):
        one, other = getattr(linear, name), getattr(before, name)
        assert (
            one is None if other is None else torch.equal(one, other) and one.dtype == other.dtype
        )


@pytest.mark.parametrize("form", FORMATS)
def test_an_embedding_gives_rows_in_the_dtype_that_it_was_given(form: str) -> None:
    embedding = random_embedding(50, 96, form)
    ids = torch.tensor([[3, 0, 49], [7, 7, 1]])
    torch.testing.assert_close(embedding(ids), embedding.dequantized()[ids], rtol=0, atol=0)
    embedding.half()
    assert embedding(ids).dtype == embedding.output_dtype == torch.float16
    assert embedding.weight.dtype != torch.float16


def test_kernels_may_read_it_and_no_descendant_of_it() -> None:
    class Other(GroupedLinear):
        pass

    linear = random_linear(6, 70, "int4")
    assert isinstance(linear, HasLinearWeights)
    weights = linear.linear_weights()
    assert weights is not None and weights.size == (6, 70)
    assert [part is None for part in weights.tensors] == [False, True, True, False, False]
    assert Other(70, 6, "int4").linear_weights() is None
    assert repr(linear) == "GroupedLinear(70, 6, int4, bias=False)"
