"""The native int8 product: right on every instruction set this processor has, and safe at odd shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lolama_quant.cpu.int8_linear import native_linear
from lolama_quant.cpu.library import INT8_INSTRUCTION_SETS, NativeLibrary, native_library

pytestmark = pytest.mark.skipif(
    isinstance(native_library(), str), reason=f"no native library: {native_library()}"
)
GROUP = 64


def usable_sets() -> list[int]:
    library = native_library()
    if isinstance(library, str):
        return []
    best = INT8_INSTRUCTION_SETS[library.int8_instruction_set]
    usable = {
        "portable": [0],
        "AVX2": [0, 1],
        "AVX-512 VNNI": [0, 1, 2],
        "NEON": [0, 3],
        "NEON dot product": [0, 3, 4],
    }
    return usable[best]


def expected(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """The definition, in float64: activations rounded to 8 bits in groups of 64, and heavy groups twice."""
    rows, inputs = x.shape
    padded = torch.zeros(rows, -(-inputs // GROUP) * GROUP)
    padded[:, :inputs] = x
    groups = padded.view(rows, -1, GROUP)
    near = rounded(groups)
    heavy = groups.abs().amax(dim=-1) > 3.5 * groups.square().mean(dim=-1).sqrt()
    both = near + torch.where(heavy[..., None], rounded((groups - near).float()), 0)
    return both.view(rows, -1)[:, :inputs] @ weight.double().T * scale.double()


def rounded(groups: Tensor) -> Tensor:
    """Each value as the nearest of 255 multiples of its group's step; float64."""
    most = groups.abs().amax(dim=-1, keepdim=True)
    whole = torch.where(most > 1e-30, (groups * (127 / most)).round(), 0.0)
    return whole.double() * (most / 127).double()


def expected_of_whole_rows(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """The definition of AVX2's in native/panels.h: activations of 15 bits, with a scale for each row."""
    step = x.abs().amax(dim=1, keepdim=True) / 16000
    whole = torch.where(step > 1e-34, (x * (1 / step)).round(), 0.0)
    return (whole.double() * step.double()) @ weight.double().T * scale.double()


def definition_of(instruction_set: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    is_avx2 = INT8_INSTRUCTION_SETS[instruction_set] == "AVX2"
    return expected_of_whole_rows if is_avx2 else expected


@pytest.mark.parametrize("instruction_set", usable_sets())
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 16, 33, 600])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (5, 7), (33, 64), (17, 129), (700, 1000)])
def test_every_instruction_set_equals_float64(
    instruction_set: int, rows: int, outputs: int, inputs: int
) -> None:
    library = native_library()
    assert isinstance(library, NativeLibrary)
    torch.manual_seed(rows)
    x = torch.randn(rows, inputs) * torch.logspace(-3, 3, inputs)
    x[:, ::100] *= 30  # heavy groups
    weights = [torch.randint(-128, 128, (n, inputs), dtype=torch.int8) for n in (outputs, 3)]
    scales = [torch.rand(outputs), torch.rand(3)]
    bias = torch.randn(3)
    y = torch.full((rows, outputs + 3), float("nan"))
    library.int8_linear(
        x.data_ptr(),
        [weight.data_ptr() for weight in weights],
        [scale.data_ptr() for scale in scales],
        [0, bias.data_ptr()],
        [outputs, 3],
        y.data_ptr(),
        rows,
        inputs,
        instruction_set,
    )
    definition = definition_of(instruction_set)
    parts = [definition(x, weight, scale) for weight, scale in zip(weights, scales, strict=True)]
    wanted = torch.cat((parts[0], parts[1] + bias.double()), dim=1)
    # Only the order of float32 additions differs.
    size = float(wanted.abs().max())
    torch.testing.assert_close(y.double(), wanted, atol=2e-6 * size, rtol=1e-5)


@pytest.mark.parametrize("instruction_set", usable_sets())
@pytest.mark.parametrize("rows", [2, 9])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_do_not_overflow(instruction_set: int, sign: int, rows: int) -> None:
    library = native_library()
    assert isinstance(library, NativeLibrary)
    x = torch.full((rows, 8192), 1.0)
    weight = torch.full((4, 8192), -128 if sign < 0 else 127, dtype=torch.int8)
    scale, y = torch.ones(4), torch.empty(rows, 4)
    library.int8_linear(
        *(x.data_ptr(), [weight.data_ptr()], [scale.data_ptr()], [0], [4]),
        *(y.data_ptr(), rows, 8192, instruction_set),
    )
    torch.testing.assert_close(y, torch.full((rows, 4), float(weight[0, 0]) * 8192))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_visible(value: float) -> None:
    x = torch.randn(3, 100)
    x[1, 70] = value
    y = native_linear(x, torch.ones(5, 100, dtype=torch.int8), torch.ones(5))
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


def test_a_row_has_the_same_result_alone_and_among_others() -> None:
    x, weight = torch.randn(7, 300), torch.randint(-127, 128, (50, 300), dtype=torch.int8)
    together = native_linear(x, weight, torch.ones(50))
    alone = torch.cat([native_linear(row[None], weight, torch.ones(50)) for row in x])
    assert torch.equal(together, alone)


def has_panels() -> bool:
    library = native_library()
    return isinstance(library, NativeLibrary) and library.has_panels


@pytest.mark.skipif(
    not has_panels(), reason="this processor has products of integers for many rows"
)
@pytest.mark.parametrize("rows", [8, 9, 193, 400])
@pytest.mark.parametrize(("outputs", "inputs"), [(5, 7), (41, 512), (6, 513), (30, 1300)])
def test_panels_round_activations_to_fifteen_bits(rows: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(rows)
    x, scale = torch.randn(rows, inputs), torch.rand(outputs)
    x[1], x[2], x[3, 5] = 0, 1e-38, float("nan")
    weight = torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8)
    y = native_linear(x, weight, scale)
    assert y[3].isnan().all() and y[1:3].eq(0).all()
    keep = [row for row in range(rows) if row != 3]
    wanted = expected_of_whole_rows(x[keep], weight, scale)
    size = float(wanted.abs().max())
    torch.testing.assert_close(y[keep].double(), wanted, atol=1e-5 * size, rtol=1e-4)


def test_tiny_activations_are_zeros() -> None:
    y = native_linear(
        torch.full((1, 64), 1e-38), torch.ones(4, 64, dtype=torch.int8), torch.ones(4)
    )
    assert y.tolist() == [[0.0] * 4]


def test_shapes_dtypes_and_layouts() -> None:
    weight, scale = torch.randint(-127, 128, (6, 10), dtype=torch.int8), torch.rand(6)
    x = torch.randn(10, 3).t().half()
    y = native_linear(x, weight, scale)
    library = native_library()
    assert isinstance(library, NativeLibrary)
    wanted = definition_of(library.int8_instruction_set)(x.float(), weight, scale)
    torch.testing.assert_close(y.double(), wanted, atol=1e-3, rtol=1e-4)
    assert y.dtype == torch.float32
    assert native_linear(torch.empty(0, 10), weight, scale).shape == (0, 6)


def test_is_an_operator_of_torch() -> None:
    arguments = (torch.randn(3, 64), torch.ones(5, 64, dtype=torch.int8), torch.rand(5))
    torch.library.opcheck(torch.ops.lolama.int8_linear.default, arguments)


def test_row_104_tensors_that_are_the_negative_of_their_memory() -> None:
    x, weight = torch.randn(3, 64), torch.randint(-127, 128, (16, 64), dtype=torch.int8)
    scale = torch.rand(16)
    expected = native_linear(x, weight, scale)
    lazy = [torch._neg_view(-tensor) for tensor in (x, weight, scale)]
    assert torch.equal(native_linear(*lazy), expected)
