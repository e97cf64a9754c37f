from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.config import LlamaConfig
from lolama_core.linear import (
    Linear,
    OutputProjection,
    kernels_in_use,
    outputs_of,
    prepare_,
)
from lolama_core.llama import Llama


class CountingKernel:
    """The obvious product, counted."""

    name = "counting"

    def __init__(self, rows: int) -> None:
        self.rows, self.calls = rows, 0

    def describe(self) -> str:
        return "for tests"

    def max_rows(self, weight: Tensor) -> int:
        return self.rows if weight.dtype == torch.bfloat16 else 0

    def linear(
        self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        self.calls += 1
        pairs = zip(weights, biases, strict=True)
        return torch.cat(
            [F.linear(x, w.float(), None if b is None else b.float()) for w, b in pairs], dim=-1
        )


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
    monkeypatch.setattr("lolama_core.linear.processor_multiplies", lambda dtype: multiplies)

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
    """On every processor, whichever this one is: the same logits within the rounding of bfloat16."""
    for module in ("linear", "attention", "llama"):
        monkeypatch.setattr(f"lolama_core.{module}.processor_multiplies", lambda dtype: multiplies)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=96, d_model=64, num_heads=4, num_layers=2, hidden_dim=272)
    model = Llama(config).eval().bfloat16()
    ids = torch.randint(0, 96, (2, 20))
    with torch.inference_mode():
        narrow, wide = model(ids), model.float()(ids)
    tolerance = 0.05 if multiplies else 1e-2  # only keys and values are rounded
    torch.testing.assert_close(narrow, wide, atol=tolerance, rtol=tolerance)


def test_prepare_uses_the_kernel_up_to_its_rows() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), Linear(4, 2)).bfloat16()
    before = {name: t.data_ptr() for name, t in model.state_dict().items()}
    few, many = CountingKernel(2), CountingKernel(3)
    prepare_(model, [few, many])
    assert {name: t.data_ptr() for name, t in model.state_dict().items()} == before
    assert model(torch.randn(3, 8)).shape == (3, 2)
    assert (few.calls, many.calls) == (0, 2)
    model(torch.randn(2, 2, 8))
    assert many.calls == 2


@pytest.mark.parametrize("kernels", [[], [CountingKernel(4)]])
def test_without_a_kernel_other_linears_are_multiplied_as_ours_are(
    kernels: list[CountingKernel],
) -> None:
    plain = nn.Linear(8, 4)
    model = nn.Sequential(plain)
    prepare_(model, kernels)  # none is for float32
    ours = model[0]
    assert isinstance(ours, Linear) and ours.kernel is None
    assert ours.weight is plain.weight and ours.bias is plain.bias
    x = torch.randn(3, 8)
    torch.testing.assert_close(model(x), plain(x))
    kept = model[0]
    prepare_(model, kernels)
    assert model[0] is kept


def test_kernels_in_use_are_counted() -> None:
    wide = OutputProjection(4, 2, dtype=torch.float32)
    model = nn.Sequential(nn.Linear(8, 4).bfloat16(), nn.ReLU(), Linear(4, 2).bfloat16(), wide)
    assert kernels_in_use(model) == {None: 3}
    kernel = CountingKernel(2)  # for bfloat16 alone
    prepare_(model, [CountingKernel(1), kernel])
    assert kernels_in_use(model) == {kernel: 2, None: 1}
    assert kernels_in_use(nn.ReLU()) == {}


def test_both_products_agree() -> None:
    linear = Linear(64, 32).bfloat16()
    x = torch.randn(2, 64)
    plain = linear(x)
    prepare_(nn.Sequential(linear), [CountingKernel(2)])
    assert linear.kernel is not None
    torch.testing.assert_close(linear(x), plain, atol=2e-2, rtol=2e-2)


def test_linears_of_one_input_are_one_call_of_a_shared_kernel() -> None:
    linears = [Linear(16, n, bias=n == 3).bfloat16() for n in (2, 3, 5)]
    x = torch.randn(1, 16)
    apart = [linear(x) for linear in linears]
    kernel = CountingKernel(2)
    prepare_(nn.ModuleList(linears), [kernel])
    together = outputs_of(x, *linears)
    assert kernel.calls == 1
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)
    assert outputs_of(torch.randn(3, 16), *linears)[2].shape == (3, 5)  # too many rows for it
    assert kernel.calls == 1


def test_linears_of_one_input_may_be_any_modules() -> None:
    linears = [Linear(16, 4).bfloat16(), nn.Linear(16, 2)]  # such as one that is quantized
    prepare_(nn.ModuleList([linears[0]]), [CountingKernel(2)])
    assert [y.shape for y in outputs_of(torch.randn(1, 16), *linears)] == [(1, 4), (1, 2)]


def test_many_rows_of_float16_are_multiplied_in_float32() -> None:
    linear = Linear(1 << 12, 300, bias=True).half()
    linear.bias.data = linear.bias.float()
    x = torch.randn(9, 1 << 12)
    expected = x @ linear.weight.float().T + linear.bias
    torch.testing.assert_close(linear(x), expected, atol=1e-5, rtol=1e-5)


def test_a_kernel_is_asked_again_when_a_weight_moves() -> None:
    holder = nn.Sequential(Linear(3, 2, bias=False)).bfloat16()
    prepare_(holder, [CountingKernel(rows=4)])
    (linear,) = holder
    assert isinstance(linear, Linear)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        holder.to(dtype)
        rows.append(linear.kernel_rows)
    assert rows == [0, 4]
