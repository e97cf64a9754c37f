"""Blocks of GGUF files against the ``gguf`` package, which reads them with NumPy."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from lolama_core.protocols.grouped import CHUNK, FORMATS
from lolama_hub.gguf.block_types import BLOCKS
from lolama_hub.gguf.blocks import dequantized, grouped

# Bytes of a block where a float16 begins. All others may have any value.
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q3_K": (108,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}


def random_rows(name: str, rows: int, inputs: int, seed: int = 0) -> Tensor:
    """Rows of random blocks with scales that a model could have."""
    generator = torch.Generator().manual_seed(seed)
    kind = BLOCKS[name]
    shape = (rows, inputs // kind.inputs, kind.size)
    blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    for place in HALVES[name]:
        scales = torch.randn(shape[:2], generator=generator).mul(0.01).half()
        blocks[..., place : place + 2] = scales[..., None].view(torch.uint8)
    return blocks.flatten(1)


def oracle(name: str, rows: Tensor) -> Tensor:
    """The values as the ``gguf`` package has them."""
    values = gguf.dequantize(rows.numpy(), gguf.GGMLQuantizationType[name])
    return torch.from_numpy(np.ascontiguousarray(values))


@pytest.mark.parametrize("name", BLOCKS)
def test_values_are_those_of_the_gguf_package(name: str) -> None:
    rows = random_rows(name, 5, 768)
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] == (
        BLOCKS[name].inputs,
        BLOCKS[name].size,
    )
    found = dequantized(BLOCKS[name], rows)
    assert found.dtype == torch.float32
    assert torch.equal(found, oracle(name, rows))


@pytest.mark.parametrize("name", BLOCKS)
def test_values_of_experts(name: str) -> None:
    rows = random_rows(name, 6, 256).view(3, 2, -1)
    assert torch.equal(
        dequantized(BLOCKS[name], rows), oracle(name, rows.flatten(0, 1)).view(3, 2, 256)
    )


def values_of(name: str, tensors: dict[str, Tensor], inputs: int) -> Tensor:
    """A grouped weight by its definition in `GroupFormat`, input by input."""
    found = FORMATS[name]
    weight, block_scale = tensors["weight"], tensors["block_scale"].float()
    parts = 2 if found.has_minimums else 1
    per_block = found.block // found.group
    values = torch.empty(len(weight), inputs)
    for k in range(inputs):
        block, group = k // found.block, k % found.block // found.group
        if found.bits == 4:
            chunk, place = divmod(k, CHUNK)
            half, byte = divmod(place, CHUNK // 2)
            code = weight[:, chunk * (CHUNK // 2) + byte] >> 4 * half & 15
        else:
            code = weight[:, k]
        scale = block_scale[:, block * parts]
        minimum = block_scale[:, block * parts + 1] if found.has_minimums else torch.zeros(1)
        if found.block != found.group:
            scales = tensors["group_scale"].view(len(values), -1, parts, per_block)[:, block]
            scale = scale * scales[:, 0, group]
            if found.has_minimums:
                minimum = minimum * scales[:, 1, group]
        values[:, k] = scale * code.float() - minimum
    return values


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        (name, inputs)
        for name, kind in BLOCKS.items()
        for inputs in (32, 96, 256, 768)
        if kind.grouped and inputs % kind.inputs == 0
    ],
)
def test_grouped_tensors_have_equal_values(name: str, inputs: int) -> None:
    kind = BLOCKS[name]
    rows = random_rows(name, 4, inputs)
    expected = FORMATS[kind.grouped].tensors(4, inputs)
    tensors = {part: grouped(kind, rows, part) for part in expected}
    dtypes = {"U8": torch.uint8, "I8": torch.int8, "F16": torch.float16}
    assert {part: (one.dtype, tuple(one.shape)) for part, one in tensors.items()} == {
        part: (dtypes[dtype], shape) for part, (dtype, shape) in expected.items()
    }
    assert all(one.is_contiguous() for one in tensors.values())
    assert torch.equal(values_of(kind.grouped, tensors, inputs), oracle(name, rows))
