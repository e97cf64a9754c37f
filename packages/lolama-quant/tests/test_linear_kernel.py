"""The native product: right on every instruction set this processor has, and safe at odd shapes."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
import torch
from torch import Tensor

from lolama_core.protocols import LinearKernel
from lolama_core.testing.quantizer import LinearKernelSuite
from lolama_quant.cpu.int8_linear import native_linear
from lolama_quant.cpu.library import (
    INSTRUCTION_SETS,
    NativeLibrary,
    dtype_number,
    native_library,
)
from lolama_quant.linear_kernel import NativeLinearKernel

KERNEL: LinearKernel = NativeLinearKernel()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
needs_library = pytest.mark.skipif(
    isinstance(native_library(), str), reason=f"no native library: {native_library()}"
)


class TestNativeLinearKernel(LinearKernelSuite):
    @pytest.fixture
    def kernel(self) -> LinearKernel:
        return KERNEL


def test_is_found_by_its_name() -> None:
    (found,) = entry_points(group="lolama.linear_kernels", name="native")
    assert found.load() is NativeLinearKernel


def usable_sets() -> list[int]:
    library = native_library()
    if isinstance(library, str):
        return []
    best = INSTRUCTION_SETS[library.instruction_set]
    usable = {"portable": [0], "AVX2": [0, 1], "AVX-512": [0, 1, 2], "NEON": [0, 3]}
    return usable[best]


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("instruction_set", usable_sets())
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 200])
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(1, 1), (5, 7), (33, 64), (17, 129), (40, 2048), (9, 1100)]
)
def test_every_instruction_set_equals_float64(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    instruction_set: int,
    rows: int,
    outputs: int,
    inputs: int,
) -> None:
    library = native_library()
    assert isinstance(library, NativeLibrary)
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs).to(dtype)
    y = torch.full((rows, outputs), float("nan"))
    number = dtype_number(dtype)
    assert number is not None
    library.linear(
        x.data_ptr(),
        [weight.data_ptr()],
        [0],
        [outputs],
        y.data_ptr(),
        rows,
        inputs,
        number,
        instruction_set,
    )
    expected = x.double() @ weight.double().T
    # Only the order of float32 additions differs: no weight or activation is rounded.
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


@needs_library
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_sixteen_bit_pattern_is_widened_exactly(dtype: torch.dtype) -> None:
    patterns = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype)
    weight = patterns[patterns.isfinite()][:, None].contiguous()
    result = KERNEL.linear(torch.ones(1, 1), [weight], [None])[0]
    assert torch.equal(result, weight[:, 0].float())


@needs_library
def test_shapes_and_layouts() -> None:
    weight = torch.randn(6, 10).bfloat16()
    x = torch.randn(2, 10, 3).transpose(1, 2)  # not contiguous
    assert KERNEL.linear(x, [weight], [None]).shape == (2, 3, 6)
    assert KERNEL.linear(torch.randn(0, 10), [weight], [None]).shape == (0, 6)
    assert KERNEL.linear(torch.randn(10), [weight], [None]).shape == (6,)
    half = KERNEL.linear(x.half(), [weight], [torch.ones(6)])
    assert half.dtype == torch.float16


def has_tiles() -> bool:
    library = native_library()
    return isinstance(library, NativeLibrary) and library.tiled is not None


@pytest.mark.skipif(not has_tiles(), reason="this processor does not multiply bfloat16")
@pytest.mark.parametrize("rows", [2, 3, 4, 5, 6, 16, 33, 64, 600])
@pytest.mark.parametrize("inputs", [64, 513, 1000, 2085])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_multiply_bfloat16_and_add_float32(
    rows: int, inputs: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(rows)
    x = torch.randn(rows, inputs).to(dtype)
    weights = [torch.randn(n, inputs).bfloat16() for n in (700, 301, 8)]
    biases = [None, torch.randn(301), None]
    result = KERNEL.linear(x, weights, biases)
    assert result.dtype == dtype
    expected = x.bfloat16().double() @ torch.cat(weights).double().T
    expected[:, 700:1001] += torch.cat([bias for bias in biases if bias is not None]).double()
    tolerance = {torch.float32: 1e-3, torch.bfloat16: 0.3}[dtype]
    torch.testing.assert_close(result.double(), expected, atol=tolerance, rtol=1e-2)


@pytest.mark.skipif(not has_tiles(), reason="this processor does not multiply bfloat16")
def test_too_few_outputs_for_tiles() -> None:
    x, weight = torch.randn(20, 64), torch.randn(3, 64).bfloat16()
    result = KERNEL.linear(x, [weight], [None])
    torch.testing.assert_close(result, x @ weight.float().T, atol=1e-4, rtol=1e-4)


@needs_library
@pytest.mark.parametrize("rows", [1, 6])
def test_several_weights_side_by_side(rows: int) -> None:
    x, weights = torch.randn(rows, 70), [torch.randn(n, 70).half() for n in (3, 1, 900)]
    biases = [None, torch.randn(1), torch.randn(900).half()]
    together = KERNEL.linear(x, weights, biases)
    one_by_one = [KERNEL.linear(x, [w], [b]) for w, b in zip(weights, biases, strict=True)]
    assert torch.equal(together, torch.cat(one_by_one, dim=-1))


@needs_library
def test_torch_keeps_one_pool_of_threads() -> None:
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            runtimes = {line.split()[-1] for line in maps if "libgomp" in line or "libomp" in line}
    except OSError:
        pytest.skip("reads loaded libraries from /proc")
    assert len(runtimes) == 1


@needs_library
def test_survives_torch_compile() -> None:
    weight = torch.randn(6, 10).bfloat16()

    def product(x: Tensor) -> Tensor:
        return KERNEL.linear(x * 2, [weight], [None]) + 1

    x = torch.randn(1, 10)
    compiled = torch.compile(product, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), product(x))


def test_other_devices_and_dtypes_are_left_to_torch() -> None:
    assert KERNEL.max_rows(torch.empty(2048, 2048, dtype=torch.bfloat16, device="meta")) == 0
    assert KERNEL.max_rows(torch.empty(2048, 2048, dtype=torch.float64)) == 0
    assert KERNEL.max_rows(torch.empty(8, 8, dtype=torch.bfloat16)) == 0
    assert KERNEL.describe()


@needs_library
@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_threads_change_nothing(dtype: torch.dtype, rows: int) -> None:
    """Which outputs a thread takes depends on who is free: each is the same number whoever takes it."""
    torch.manual_seed(0)
    x, before = torch.randn(rows, 1024), torch.get_num_threads()
    # From 512 outputs on with two threads, from 768 with three, the last of them are taken by the piece.
    weights = [(torch.randn(n, 1024) * 40).to(dtype) for n in (1500, 64, 831)]

    def products() -> Tensor:
        if dtype == torch.int8:
            return torch.cat([native_linear(x, w, torch.rand(len(w))) for w in weights], dim=1)
        return KERNEL.linear(x, weights, [None] * 3)

    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            results.append(products())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 12])
def test_row_104_tensors_that_are_the_negative_of_their_memory(
    dtype: torch.dtype, rows: int
) -> None:
    x, weight, bias = torch.randn(rows, 64), torch.randn(96, 64).to(dtype), torch.randn(96)
    expected = KERNEL.linear(x, (weight,), (bias,))
    lazy = [torch._neg_view(-tensor) for tensor in (x, weight, bias)]
    assert torch.equal(KERNEL.linear(lazy[0], (lazy[1],), (lazy[2],)), expected)
