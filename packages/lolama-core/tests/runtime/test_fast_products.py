"""Products that kernels take while a module runs as it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core import kernels_in_use
from lolama_core.model.linear import Linear, OutputProjection
from lolama_core.runtime.fast_products import FastProducts
from lolama_core.runtime.kernels import Kernels


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


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
            [F.linear(x.float(), w.float(), None if b is None else b.float()) for w, b in pairs],
            dim=-1,
        ).to(x.dtype)

    def products(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        return {}


def test_the_kernel_of_most_rows_takes_up_to_so_many() -> None:
    model = nn.Sequential(
        nn.Linear(8, 4), nn.ReLU(), Linear(4, 4), OutputProjection(4, 2)
    ).bfloat16()
    few, many = CountingKernel(2), CountingKernel(3)
    products = FastProducts([model], [few, many])
    with products:
        assert model(torch.randn(3, 8, dtype=torch.bfloat16)).shape == (3, 2)
        assert (few.calls, many.calls) == (0, 3)
        model(torch.randn(2, 2, 8, dtype=torch.bfloat16))
    model(torch.randn(1, 8, dtype=torch.bfloat16))
    assert many.calls == 3


def test_both_products_agree() -> None:
    linear, kernel = Linear(64, 32).bfloat16(), CountingKernel(2)
    x = torch.randn(2, 64)
    plain = linear(x)
    with FastProducts([linear], [kernel]):
        fast = linear(x)
    assert kernel.calls == 1
    torch.testing.assert_close(fast, plain, atol=2e-2, rtol=2e-2)


def test_what_is_not_known_is_left_alone() -> None:
    class Scaled(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight * 2)

    linear, other, kernel = Scaled(4, 4).bfloat16(), Linear(4, 4).bfloat16(), CountingKernel(9)
    x = torch.randn(1, 4, dtype=torch.bfloat16)
    expected = linear(x)
    with FastProducts([linear], [kernel]):
        assert torch.equal(linear(x), expected)
        other(x)
        linear.weight = nn.Parameter(torch.zeros_like(linear.weight))
        assert not linear(x).any()
    assert kernel.calls == 0


def test_a_product_whose_gradient_is_asked_for_is_torchs() -> None:
    linear, kernel = Linear(4, 4).bfloat16().requires_grad_(False), CountingKernel(9)
    x = torch.randn(1, 4, dtype=torch.bfloat16, requires_grad=True)
    with FastProducts([linear], [kernel]):
        with torch.enable_grad():
            linear(x).sum().backward()
            assert kernel.calls == 0
            linear(x.detach())
        linear(x)
    assert kernel.calls == 2
    assert x.grad is not None and torch.equal(x.grad, linear.weight.sum(0, keepdim=True))


def test_a_kernel_may_take_products_of_its_own_and_decline_them() -> None:
    class Doubling(CountingKernel):
        def products(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
            return {torch.relu: lambda x: NotImplemented if x.dim() > 1 else x * 2}

    x = torch.tensor([-1.0, 3.0])
    with FastProducts([], [Doubling(1)]):
        assert torch.relu(x).tolist() == [-2.0, 6.0]
        assert torch.relu(x[None]).tolist() == [[0.0, 3.0]]


def test_kernels_in_use_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = OutputProjection(4, 2, dtype=torch.float32)
    model = nn.Sequential(nn.Linear(8, 4).bfloat16(), nn.ReLU(), Linear(4, 2).bfloat16(), wide)
    kernel = CountingKernel(2)  # for bfloat16 alone
    for kernels, expected in (
        ([], {None: 3}),
        ([CountingKernel(1), kernel], {kernel: 2, None: 1}),
    ):
        monkeypatch.setattr(Kernels, "installed", lambda kernels=kernels: Kernels(linear=kernels))
        assert kernels_in_use(model) == expected
        assert kernels_in_use(nn.ReLU()) == {}
