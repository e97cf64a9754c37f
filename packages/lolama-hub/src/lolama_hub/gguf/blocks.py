"""Blocks of weights in GGUF files: bytes → values, and → the tensors of a grouped format with equal values.

Legend: ... leading dimensions, N among them; B blocks of a row; G groups of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lolama_core.protocols.grouped import CHUNK, FORMATS
from lolama_hub.gguf.block_types import BlockType, split

if TYPE_CHECKING:
    from torch import Tensor


def dequantized(kind: BlockType, rows: Tensor) -> Tensor:
    """Rows of blocks as numbers: those that llama.cpp multiplies with.

    Args:
        kind: The type of the blocks.
        rows: (..., bytes of a row) uint8.

    Returns:
        (..., inputs) float32.
    """
    blocks = split(rows, -1, kind.size)
    scales = kind.scales(blocks)
    scale, minimum = scales.block, scales.block_minimum
    if scales.groups is not None:
        scale = scale * scales.groups
    if scales.minimums is not None:
        assert minimum is not None
        minimum = minimum * scales.minimums
    codes = split(kind.codes(blocks).float(), scale.shape[-1], -1)
    values = codes * scale[..., None]  # (..., B, G, inputs of a group)
    if minimum is not None:
        values = values - minimum[..., None]
    return values.flatten(-3)


def grouped(kind: BlockType, rows: Tensor, part: str) -> Tensor:
    """One tensor of a weight (N, K) in the grouped format that has the same values.

    Args:
        kind: The type of the blocks, one that has such a format.
        rows: (N, bytes of a row) uint8.
        part: ``weight``, ``group_scale`` or ``block_scale``, as `GroupFormat.tensors` describes them.
    """
    import torch

    blocks = split(rows, -1, kind.size)
    if part == "weight":
        if kind.name == "Q4_K":  # as they are: a half of a byte for each of inputs j and j + 32
            return blocks[..., 16:].flatten(1).contiguous()
        codes = kind.codes(blocks).flatten(1)
        return pack(codes) if FORMATS[kind.grouped].bits == 4 else codes
    scales = kind.scales(blocks)
    found: list[Tensor | None]
    if part == "group_scale":
        found = [scales.groups, scales.minimums]
    else:
        found = [scales.block, scales.block_minimum]
    tensor = torch.cat([one for one in found if one is not None], dim=-1).flatten(1)
    return tensor.half() if part == "block_scale" else tensor


def pack(codes: Tensor) -> Tensor:
    """(N, K) codes of four bits → (N, bytes), two in a byte, as `CHUNK` says."""
    from torch.nn import functional as F

    chunks = split(F.pad(codes, (0, -codes.shape[1] % CHUNK)), -1, 2, CHUNK // 2)
    return (chunks[:, :, 0] | chunks[:, :, 1] << 4).flatten(1)


def q8_0_blocks(values: Tensor) -> Tensor:
    """(N, K) → (N, bytes of a row) uint8: blocks of 32 inputs, rounded as llama.cpp rounds them."""
    import torch

    blocks = split(values.float(), -1, 32)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scale == 0, 0, 1 / scale)
    exact = blocks * inverse
    codes = (exact.abs() + 0.5).floor().copysign(exact).to(torch.int8)  # half away from zero
    return torch.cat((scale.half().view(torch.uint8), codes.view(torch.uint8)), -1).flatten(1)
