"""Grouped weights: their layout worked out by hand, their values against the blocks of GGUF."""

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from numpy.typing import NDArray
from torch import Tensor

from lolama_core.protocols.grouped import FORMATS, GroupFormat
from lolama_quant.grouped.codes import (
    GroupedRows,
    dequantize,
    dequantize_rows,
    pack,
    pack_nibbles,
    unpack,
    unpack_nibbles,
)

SAFETENSORS_NAMES = {torch.uint8: "U8", torch.int8: "I8", torch.float16: "F16"}
FORMAT_NAMES = sorted(FORMATS)


def random_rows(form: GroupFormat, outputs: int, inputs: int, seed: int = 0) -> GroupedRows:
    generator = torch.Generator().manual_seed(seed)
    groups, blocks = -(-inputs // form.group), -(-inputs // form.block)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        dtype = torch.int8 if low < 0 else torch.uint8
        return torch.randint(low, high, shape, generator=generator).to(dtype)

    def half(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).half()

    of_groups = form.block != form.group
    return GroupedRows(
        codes=whole(0, 16, outputs, inputs)
        if form.bits == 4
        else whole(-128, 128, outputs, inputs),
        block_scale=half(outputs, blocks),
        scale=whole(*((0, 64) if form.has_minimums else (-128, 128)), outputs, groups)
        if of_groups
        else None,
        block_minimum=half(outputs, blocks) if form.has_minimums else None,
        minimum=whole(0, 64, outputs, groups) if of_groups and form.has_minimums else None,
    )


@pytest.mark.parametrize("inputs", [1, 16, 31, 32, 33, 64, 96, 192, 256, 257, 304, 512, 776])
@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_tensors_are_those_of_the_format_and_come_back(name: str, inputs: int) -> None:
    form = FORMATS[name]
    rows = random_rows(form, 3, inputs)
    packed = pack(rows, form)
    found = {part: (SAFETENSORS_NAMES[one.dtype], tuple(one.shape)) for part, one in packed.items()}
    assert found == form.tensors(3, inputs)
    assert all(one.is_contiguous() for one in packed.values())
    for before, after in zip(rows, unpack(packed, form, inputs), strict=True):
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_values_are_those_of_the_definition(name: str) -> None:
    form = FORMATS[name]
    rows = random_rows(form, 2, 300)
    found = dequantize(pack(rows, form), form, 300)
    assert found.dtype == torch.float32
    for row, column in ((0, 0), (0, 31), (1, 32), (0, 255), (1, 256), (1, 299)):
        group, block = column // form.group, column // form.block
        # Products of these are exact in float64, so rounding them gives what float32 gives.
        scale = torch.tensor(float(rows.block_scale[row, block]), dtype=torch.float32)
        if rows.scale is not None:
            scale = scale * float(rows.scale[row, group])
        expected = scale * float(rows.codes[row, column])
        if rows.block_minimum is not None:
            low = torch.tensor(float(rows.block_minimum[row, block]), dtype=torch.float32)
            expected = expected - (
                low if rows.minimum is None else low * float(rows.minimum[row, group])
            )
        assert float(found[row, column]) == float(expected)


def test_nibbles_lie_as_the_format_says() -> None:
    codes = torch.arange(70, dtype=torch.uint8)[None] % 16
    packed = pack_nibbles(codes)
    assert packed.shape == (1, 64)
    assert packed[0, :2].tolist() == [0 | 0 << 4, 1 | 1 << 4]
    assert packed[0, 5].item() == 5 | (37 % 16) << 4
    assert packed[0, 32:38].tolist() == [0, 1, 2, 3, 4, 5]
    assert packed[0, 38:].count_nonzero() == 0
    assert torch.equal(unpack_nibbles(packed, 70), codes)


def test_scales_of_a_block_lie_together_and_before_its_minimums() -> None:
    form = FORMATS["int4"]
    rows = GroupedRows(
        codes=torch.zeros(1, 300, dtype=torch.uint8),
        block_scale=torch.tensor([[1.0, 2.0]]).half(),
        scale=torch.arange(1, 11, dtype=torch.uint8)[None],
        block_minimum=torch.tensor([[3.0, 4.0]]).half(),
        minimum=torch.arange(21, 31, dtype=torch.uint8)[None],
    )
    packed = pack(rows, form)
    first = [*range(1, 9), *range(21, 29)]
    last = [9, 10, 0, 0, 0, 0, 0, 0, 29, 30, 0, 0, 0, 0, 0, 0]
    assert packed["group_scale"].tolist() == [[*first, *last]]
    assert packed["block_scale"].tolist() == [[1, 3, 2, 4]]


def test_no_rows_at_all() -> None:
    for form in FORMATS.values():
        assert dequantize(pack(random_rows(form, 0, 40), form), form, 40).shape == (0, 40)


def from_gguf(name: str, data: NDArray[np.uint8]) -> tuple[str, GroupedRows]:
    """The numbers of GGUF's blocks (N, bytes), as ggml's block structures have them."""
    _, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    outputs = len(data)
    blocks = torch.from_numpy(data.copy()).view(outputs, -1, width)

    def half(first: int) -> Tensor:
        return blocks[..., first : first + 2].contiguous().view(torch.float16)[..., 0]

    if name == "Q8_0":
        return "int8_32", GroupedRows(blocks[..., 2:].view(torch.int8).flatten(1), half(0))
    if name in ("Q4_0", "Q4_1"):
        low = blocks[..., 2:] if name == "Q4_0" else blocks[..., 4:]
        codes = torch.cat((low & 15, low >> 4), dim=-1).flatten(1)
        minimum = half(0) * 8 if name == "Q4_0" else -half(2)
        return "int4_32", GroupedRows(codes, half(0), block_minimum=minimum)
    if name == "Q4_K":
        flat = data.reshape(-1, width)
        scale, minimum = quants.Q4_K.get_scale_min(flat[:, 4:16])
        low = blocks[..., 16:].view(outputs, -1, 4, 1, 32)
        codes = torch.cat((low & 15, low >> 4), dim=-2).flatten(1)
        return "int4", GroupedRows(
            codes,
            half(0),
            torch.from_numpy(scale.copy()).view(outputs, -1),
            half(2),
            torch.from_numpy(minimum.copy()).view(outputs, -1),
        )
    low = blocks[..., :128].view(outputs, -1, 2, 1, 64)
    high = blocks[..., 128:192].view(outputs, -1, 2, 1, 32)
    low = torch.cat((low & 15, low >> 4), dim=-2).view(outputs, -1, 2, 4, 32)
    high = torch.cat([high >> shift & 3 for shift in (0, 2, 4, 6)], dim=-2)
    codes = ((low | high << 4).to(torch.int8) - 32).flatten(1)
    return "int8_16", GroupedRows(
        codes, half(208), blocks[..., 192:208].view(torch.int8).flatten(1)
    )


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0"])
def test_values_are_those_of_gguf(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    size, width = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(0)
    data = random.integers(0, 256, (5, 3 * 256 // size, width), dtype=np.uint8)
    # Scales that are finite, and not so large that eight times one is not.
    halves = random.normal(size=(*data.shape[:2], 2)).astype(np.float16).view(np.uint8)
    places = {"Q6_K": (208,), "Q4_1": (0, 2), "Q4_K": (0, 2)}.get(name, (0,))
    for index, first in enumerate(places):
        data[..., first : first + 2] = halves[..., 2 * index : 2 * index + 2]
    data = data.reshape(5, -1)
    own, rows = from_gguf(name, data)
    expected = torch.from_numpy(quants.dequantize(data, kind).copy())
    torch.testing.assert_close(dequantize_rows(rows, FORMATS[own]), expected, rtol=0, atol=0)
