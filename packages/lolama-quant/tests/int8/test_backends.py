"""One contract for every backend: the product in float64, at any number of rows and any sizes.

On a machine with an NVIDIA GPU the products of `cuda` run on it. Elsewhere they come as near as they can:
Triton in its interpreter (`nox -s triton`), the Metal kernel's own text compiled for the host.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lolama_quant.cpu.library import ANY_ROWS
from lolama_quant.int8 import description, processor
from lolama_quant.int8.absmax import LIMIT, dequantize_rows, quantize_rows
from lolama_quant.int8.backends import backend_of, cpu, cuda, reference
from lolama_quant.metal import int8_linear as metal
from lolama_quant.triton import compiler

sys.path.insert(0, str(Path(__file__).parents[1] / "metal"))
import metal_host

Product = Callable[[Tensor, Tensor, Tensor], Tensor]

GPU = torch.cuda.is_available()
# Triton chooses its interpreter when it is imported, which may have happened before this line.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NO_TRITON = pytest.mark.skipif(
    not (GPU or INTERPRETED) or find_spec("triton") is None,
    reason="runs on a GPU, or in the session `triton`",
)


def _triton(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    from lolama_quant.triton.kernels.products import few_rows

    return few_rows(x, weight, scale)


def _cuda_many(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """More rows than the kernel takes; without a GPU the path is the same."""
    padded = torch.cat((x, x.new_zeros(description.CUDA_FEW_ROWS + 1, x.shape[1])))
    return cuda.linear(padded, weight, scale)[: len(x)]


# Name → product, most rows, and whether it quantizes activations as well.
PRODUCTS: dict[str, tuple[Product, int | None, bool]] = {
    "reference": (reference.linear, None, False),
    "blockwise": (reference.blockwise_linear, None, False),
    "cpu": (cpu.linear, None, True),
    "cpu without the library": (cpu.torch_linear, None, True),
    "cpu integers": (cpu.integer_linear, None, True),
    "cuda many rows": (_cuda_many, None, False),
    "triton": (_triton, description.CUDA_FEW_ROWS, False),
    "metal": (metal_host.linear, None, False),
}
MARKS = {"triton": NO_TRITON, "metal": metal_host.NO_COMPILER}
NAMES = [pytest.param(name, marks=MARKS.get(name, ())) for name in PRODUCTS]
SIZES = [(1, 1), (3, 7), (64, 96), (129, 33), (301, 130), (513, 5)]


def run(name: str, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """The product, on the GPU if it is one for GPUs and there is one."""
    if GPU and not INTERPRETED and name in ("triton", "cuda many rows"):
        x, weight, scale = x.cuda(), weight.cuda(), scale.cuda()
    return PRODUCTS[name][0](x, weight, scale).cpu()


def check(name: str, x: Tensor, weight: Tensor, scale: Tensor) -> None:
    quantizes = PRODUCTS[name][2]
    y = run(name, x, weight, scale)
    expected = x.double() @ (weight.double() * scale.double()[:, None]).T
    assert y.shape == expected.shape
    assert y.dtype in (torch.float32, x.dtype)
    # Where the dtype rounds, sums of K products are off by its epsilon times their size.
    size = x.double().abs() @ (weight.double().abs() * scale.double()[:, None]).T
    tolerance = size * (2e-6 + (0 if y.dtype == torch.float32 else torch.finfo(y.dtype).eps))
    if x.dtype != torch.float32:
        tolerance = tolerance + size * torch.finfo(x.dtype).eps
    if quantizes:
        # An activation is off by half of a 127th of the row's largest, and all K of them at worst alike.
        largest = x.double().abs().amax(dim=1, keepdim=True) if len(x) else x.double()[:, :1]
        weights = (weight.double().abs() * scale.double()[:, None]).sum(dim=1)
        tolerance = tolerance + 0.501 * largest / LIMIT * weights
    assert bool(((y.double() - expected).abs() <= tolerance + 1e-30).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 16, 17, 33, 200])
def test_equals_the_float64_product(name: str, dtype: torch.dtype, rows: int) -> None:
    most = PRODUCTS[name][1]
    if (most is not None and rows > most) or (name == "triton" and rows == 0):
        pytest.skip("never called for more rows")
    if name == "triton" and INTERPRETED and dtype == torch.bfloat16 and rows > 1:
        pytest.skip("Triton's interpreter multiplies the bit patterns of bfloat16")
    generator = torch.manual_seed(rows)
    for inputs, outputs in SIZES:
        weight, scale = quantize_rows(torch.randn(outputs, inputs, generator=generator))
        x = torch.randn(rows, inputs, generator=generator).to(dtype)
        check(name, x, weight, scale)


@pytest.mark.parametrize("name", NAMES)
def test_extremes_and_input_that_is_not_contiguous(name: str) -> None:
    inputs = 300
    weight = torch.tensor([127, -127, -128 + 1, 1], dtype=torch.int8)[:, None].repeat(1, inputs)
    scale = torch.tensor([1e-3, 1e3, 1.2e-38, 0.5])
    x = torch.randn(inputs, 5, generator=torch.manual_seed(0)).t()
    x[2] = 0
    assert not x.is_contiguous()
    check(name, x, weight, scale)


def at(tensor: Tensor, offset: int) -> Tensor:
    """A copy that begins ``offset`` bytes behind an address that every register can be loaded from."""
    memory = torch.empty(tensor.nbytes + offset + 64, dtype=torch.uint8)
    begin = -memory.data_ptr() % 64 + offset
    moved = memory[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return moved.copy_(tensor)


# Where they begin some products of torch end the process: with one row, with four and more, on AVX2.
@pytest.mark.parametrize("name", [*NAMES[:5], pytest.param("bfloat16")])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 20])
def test_row_211_tensors_may_begin_anywhere(
    monkeypatch: pytest.MonkeyPatch, name: str, rows: int
) -> None:
    monkeypatch.setitem(PRODUCTS, "bfloat16", (cpu.bfloat16_linear, None, True))
    generator = torch.manual_seed(rows)
    for outputs in (3, 64, 190):
        weight, scale = quantize_rows(torch.randn(outputs, 192, generator=generator))
        x = torch.randn(rows, 192, generator=generator).to(torch.bfloat16)
        for of_weight, of_x in ((8, 0), (1, 0), (16, 0), (0, 2), (0, 8), (0, 16), (24, 48)):
            check(name, at(x, of_x), at(weight, of_weight), scale)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(name: str, value: float) -> None:
    x = torch.ones(2, 40)
    x[1, 3] = value
    y = run(name, x, torch.ones(6, 40, dtype=torch.int8), torch.ones(6))
    assert bool(y[0].isfinite().all())
    assert not bool(y[1].isfinite().any())


@pytest.mark.parametrize("name", ["cpu", "cpu integers"])
def test_a_row_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    generator = torch.manual_seed(0)
    weight, scale = quantize_rows(torch.randn(50, 70, generator=generator))
    x = torch.randn(6, 70, generator=generator)
    x[1, 5] = 1000.0  # a heavy row
    product = PRODUCTS[name][0]
    together = product(x, weight, scale)
    assert all(
        torch.equal(product(x[row : row + 1], weight, scale)[0], together[row]) for row in range(6)
    )


def test_a_heavy_row_keeps_its_small_values() -> None:
    generator = torch.manual_seed(0)
    weight, scale = quantize_rows(torch.randn(64, 256, generator=generator))
    x = torch.randn(20, 256, generator=generator)
    x[:, 7] = 500.0
    expected = (
        x.double() @ dequantize_rows(quantize_rows(weight.float() * scale[:, None])).double().T
    )
    error = (cpu.integer_linear(x, weight, scale).double() - expected).norm() / expected.norm()
    # With one scale for a row, all but the largest value would be rounded to a few integers.
    values, row_scale = quantize_rows(x)
    once = (values.float() * row_scale[:, None]).double() @ (weight.double() * scale[:, None]).T
    assert error < 0.02 * ((once - expected).norm() / expected.norm())


def test_backends_are_chosen_by_the_kind_of_device() -> None:
    assert backend_of("cpu") is cpu
    assert backend_of("cuda") is cuda
    assert backend_of("mps") is metal
    assert backend_of("xpu") is reference


@pytest.mark.skipif(
    not processor.widens_in_registers(), reason="torch has no vector code for it here"
)
@pytest.mark.parametrize(
    ("rows", "inputs", "taken"), [(1, 96, 1), (8, 96, 1), (9, 96, 0), (1, 97, 0)]
)
def test_few_rows_without_the_library_keep_bfloat16(
    monkeypatch: pytest.MonkeyPatch, rows: int, inputs: int, taken: int
) -> None:
    calls: list[int] = []

    def counted(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        calls.append(len(x))
        return product(x, weight, scale)

    product = cpu.bfloat16_linear
    monkeypatch.setattr(cpu, "bfloat16_linear", counted)
    x, weight = torch.randn(rows, inputs), torch.randint(-127, 128, (50, inputs), dtype=torch.int8)
    x[0, 3] = 1e4  # which costs the others nothing
    scale = torch.rand(50)
    y = cpu.torch_linear(x, weight, scale)
    expected = (x.double() @ weight.double().T) * scale
    assert len(calls) == taken
    assert (y - expected).norm() < 0.01 * expected.norm()


def test_what_multiplies_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(cpu, "integer_linear", lambda *_: calls.append("integers"))
    monkeypatch.setattr(cpu, "blockwise_linear", lambda *_: calls.append("floats"))
    monkeypatch.setattr(cpu, "native_linear", lambda *_: calls.append("native"))
    x, weight, scale = torch.randn(17, 8), torch.ones(4, 8, dtype=torch.int8), torch.ones(4)
    for able in (True, False):
        monkeypatch.setattr(cpu, "multiplies_integers", lambda able=able: able)
        for rows in (0, 16, ANY_ROWS):
            monkeypatch.setattr(cpu, "int8_rows", lambda rows=rows: rows)
            for sample in (x, x[:1], x[:0]):
                cpu.linear(sample, weight, scale)
    expected = []
    for other in ("integers", "floats"):
        expected += [other] * 3 + [other, "native", other] + ["native", "native", other]
    assert calls == expected


def test_cuda_without_triton_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_missing", lambda: "Triton is not installed")
    assert "Triton is not installed" in description.describe("cuda")
    y = cuda.linear(torch.ones(1, 8), torch.ones(4, 8, dtype=torch.int8), torch.ones(4))
    assert y.tolist() == [[8.0] * 4]
