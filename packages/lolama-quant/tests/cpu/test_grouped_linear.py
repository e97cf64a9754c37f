"""Native products with grouped weights: right on every instruction set here, and safe at odd shapes."""

from __future__ import annotations

import dataclasses
import random
import sys
from pathlib import Path

import pytest
import torch

from lolama_core.protocols.grouped import FORMATS
from lolama_quant.cpu import grouped_linear
from lolama_quant.cpu.grouped_linear import native_grouped
from lolama_quant.cpu.library import INT8_INSTRUCTION_SETS, NativeLibrary, native_library
from lolama_quant.grouped.linear import GroupedLinear
from lolama_quant.grouped.rounded_blocks import round_blocks

sys.path.insert(0, str(Path(__file__).parents[1] / "grouped"))
from grouped_layers import random_linear

pytestmark = pytest.mark.skipif(
    isinstance(native_library(), str), reason=f"no native library: {native_library()}"
)


def usable_sets() -> list[int]:
    library = native_library()
    if isinstance(library, str):
        return []
    best = INT8_INSTRUCTION_SETS[library.int8_instruction_set]
    others = {"AVX2": [1], "AVX-512 VNNI": [1, 2], "NEON": [3], "NEON dot product": [3, 4]}
    return [0, *others.get(best, [])]


@pytest.fixture(params=usable_sets())
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    library = native_library()
    assert isinstance(library, NativeLibrary)
    limited = dataclasses.replace(library, int8_instruction_set=request.param)
    monkeypatch.setattr(grouped_linear, "native_library", lambda: limited)
    number: int = request.param
    return number


def product(x: torch.Tensor, layer: GroupedLinear) -> torch.Tensor:
    return native_grouped(x, layer.weight, layer.group_scale, layer.block_scale, layer.form.name)


def activations(rows: int, inputs: int) -> torch.Tensor:
    x = torch.randn(rows, inputs)
    x[:, ::100] *= 30  # heavy blocks
    return x


def check(x: torch.Tensor, layer: GroupedLinear) -> None:
    """Only the order of float32 additions differs from the definition, and ties of activations."""
    wide = layer.dequantized().double()
    rounded = round_blocks(x, layer.form).double()
    size = rounded.abs() @ wide.abs().T + 1e-30
    # A rounding may fall to the other side where the inverse of a scale is rounded.
    assert ((product(x, layer).double() - rounded @ wide.T) / size).abs().max() < 1e-3
    mean = ((product(x, layer).double() - rounded @ wide.T) / size).abs().mean()
    assert mean < 3e-5


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 7, 16, 33, 130])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (5, 7), (33, 64), (17, 304), (90, 1000)])
@pytest.mark.parametrize("form", FORMATS)
def test_every_instruction_set_equals_float64(
    instruction_set: int, form: str, outputs: int, inputs: int, rows: int
) -> None:
    check(activations(rows, inputs), random_linear(outputs, inputs, form, seed=rows))


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_has_the_same_result_alone_and_among_others(instruction_set: int, form: str) -> None:
    x, layer = activations(41, 700), random_linear(50, 700, form)
    together = product(x, layer)
    assert torch.equal(together, torch.cat([product(row[None], layer) for row in x]))
    assert torch.equal(together[:5], product(x[:5], layer))


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("form", FORMATS)
def test_the_largest_sums_do_not_overflow(
    instruction_set: int, form: str, sign: int, rows: int
) -> None:
    """Whatever a file holds: all bits of codes and scales."""
    layer = random_linear(9, 1024, form)
    for part in layer.parameters():
        if part.dtype == torch.float16:
            part.data.fill_(1)
        else:
            highest = 127 if part.dtype == torch.int8 else 255
            part.data.fill_(-128 if sign < 0 and part.dtype == torch.int8 else highest)
    x = torch.full((rows, 1024), 1.0)
    wanted = x.double() @ layer.dequantized().double().T
    size = float(x.abs().double().max() * layer.dequantized().abs().double().sum(1).max())
    torch.testing.assert_close(product(x, layer).double(), wanted, atol=1e-5 * size + 1, rtol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_not_finite_stays_visible(
    instruction_set: int, form: str, rows: int, value: float
) -> None:
    x = activations(rows, 600)
    x[rows - 1, 599] = value
    found = product(x, random_linear(11, 600, form))
    assert found[rows - 1].isnan().all() and found[: rows - 1].isfinite().all()


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_that_are_the_negative_of_their_memory_or_not_contiguous(form: str) -> None:
    x, layer = activations(3, 128), random_linear(16, 128, form)
    expected = product(x, layer)
    lazy = torch._neg_view(-layer.block_scale)
    found = native_grouped(x, layer.weight, layer.group_scale, lazy, form)
    assert torch.equal(found, expected)
    spread = layer.weight.repeat_interleave(2, dim=1)[:, ::2]
    found = native_grouped(x, spread, layer.group_scale, layer.block_scale, form)
    assert torch.equal(found, expected)


def test_tensors_of_another_size_are_never_read() -> None:
    layer = random_linear(16, 128, "int4")
    with pytest.raises(AssertionError):
        native_grouped(
            torch.randn(1, 300), layer.weight, layer.group_scale, layer.block_scale, "int4"
        )


@pytest.mark.parametrize("form", FORMATS)
def test_is_an_operator_of_torch(form: str) -> None:
    layer = random_linear(5, 64, form)
    arguments = (torch.randn(3, 64), layer.weight, layer.group_scale, layer.block_scale, form)
    torch.library.opcheck(torch.ops.lolama.grouped_linear.default, arguments)


def test_many_shapes(instruction_set: int) -> None:
    numbers = random.Random(0)
    for trial in range(60):
        form = numbers.choice(list(FORMATS))
        outputs, inputs = numbers.randint(1, 60), numbers.randint(1, 900)
        rows = numbers.choice([1, 2, 3, 6, 7, 30])
        check(activations(rows, inputs), random_linear(outputs, inputs, form, seed=trial))
