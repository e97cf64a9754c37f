from __future__ import annotations

import pytest
import torch
from torch import nn

from lolama_core.model.config import LlamaConfig
from lolama_core.model.linear import Linear, OutputProjection, share_linear_
from lolama_core.model.llama import Llama


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_input_decides_the_dtype_of_the_output(dtype: torch.dtype) -> None:
    linear = Linear(8, 4).to(dtype)
    assert linear(torch.randn(2, 3, 8)).dtype == torch.float32


def test_logits_are_exact_in_float32() -> None:
    head = OutputProjection(1 << 12, 300, bias=False).bfloat16()  # three blocks of rows
    x = torch.randn(2, 1 << 12)
    expected = x @ head.weight.float().T
    torch.testing.assert_close(head(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("multiplies", [False, True])
def test_products_are_widened_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, multiplies: bool
) -> None:
    monkeypatch.setattr("lolama_core.model.linear.processor_multiplies", lambda dtype: multiplies)

    def is_exact(outputs: int, rows: int) -> bool:
        torch.manual_seed(0)
        linear = Linear(256, outputs, bias=False).to(dtype)
        x = torch.randn(rows, 256)
        product, exact = linear(x), x @ linear.weight.float().T
        torch.testing.assert_close(product, exact, atol=0.05, rtol=0.02)
        return torch.allclose(product, exact, atol=1e-5, rtol=1e-5)

    assert is_exact(outputs=64, rows=1)  # a small weight: always
    assert not is_exact(outputs=300, rows=1)
    assert is_exact(outputs=300, rows=9) is not multiplies


@pytest.mark.parametrize("multiplies", [False, True])
def test_many_positions_in_sixteen_bits(monkeypatch: pytest.MonkeyPatch, multiplies: bool) -> None:
    """Every kind of processor gives the same logits, within the rounding of bfloat16."""
    for module in ("linear", "attention"):
        monkeypatch.setattr(
            f"lolama_core.model.{module}.processor_multiplies", lambda dtype: multiplies
        )
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=96, d_model=64, num_heads=4, num_layers=2, hidden_dim=272)
    model = Llama(config).eval().bfloat16()
    ids = torch.randint(0, 96, (2, 20))
    with torch.inference_mode():
        narrow, wide = model(ids), model.float()(ids)
    tolerance = 0.05 if multiplies else 1e-2  # only keys and values are rounded
    torch.testing.assert_close(narrow, wide, atol=tolerance, rtol=tolerance)


def test_many_rows_of_float16_are_multiplied_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a processor without instructions for them.
    monkeypatch.setattr("lolama_core.model.linear.processor_multiplies", lambda dtype: False)
    linear = Linear(1 << 12, 300, bias=True).half()
    linear.bias.data = linear.bias.float()
    x = torch.randn(9, 1 << 12)
    expected = x @ linear.weight.float().T + linear.bias
    torch.testing.assert_close(linear(x), expected, atol=1e-5, rtol=1e-5)


def test_linears_of_other_packages_are_multiplied_as_ours_are() -> None:
    plain = nn.Linear(8, 4)
    model = nn.Sequential(plain)
    share_linear_(model)
    ours = model[0]
    assert isinstance(ours, Linear)
    assert ours.weight is plain.weight and ours.bias is plain.bias
    x = torch.randn(3, 8)
    torch.testing.assert_close(model(x), plain(x))
    kept = model[0]
    share_linear_(model)
    assert model[0] is kept
