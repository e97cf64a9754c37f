"""Blocks of weights in GGUF files: bytes → values, and → the tensors of a grouped format with equal values.

A row of a weight is cut into blocks of 32 or 256 inputs, and a block is a run of bytes: its scale, what other
scales there are, and codes of 4, 5, 6 or 8 bits. The places of all of these are llama.cpp's (ggml-common.h).
Legend: ... leading dimensions, N among them; B blocks of a row; G groups of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from lolama_core.protocols.grouped import CHUNK, FORMATS

if TYPE_CHECKING:
    from torch import Tensor


class Scales(NamedTuple):
    """What the codes of blocks are multiplied with, and what is taken off.

    Attributes:
        block: (..., B, 1) float32.
        groups: (..., B, G) whole numbers; None where a block is one group.
        block_minimum, minimums: The same of what is taken off; None where nothing is.
    """

    block: Tensor
    groups: Tensor | None = None
    block_minimum: Tensor | None = None
    minimums: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """One type of blocks.

    Attributes:
        name: As GGUF calls it.
        inputs: Weights in a block.
        size: Bytes of a block.
        grouped: The format of `FORMATS` that has the same values; empty if none has.
        codes: (..., B, size) bytes → (..., B, inputs) codes.
        scales: The same bytes → their scales.
    """

    name: str
    inputs: int
    size: int
    grouped: str = ""
    codes: Callable[[Tensor], Tensor]
    scales: Callable[[Tensor], Scales]


def dequantized(kind: BlockType, rows: Tensor) -> Tensor:
    """Rows of blocks as numbers: those that llama.cpp multiplies with.

    Args:
        kind: The type of the blocks.
        rows: (..., bytes of a row) uint8.

    Returns:
        (..., inputs) float32.
    """
    blocks = _split(rows, -1, kind.size)
    scales = kind.scales(blocks)
    scale, minimum = scales.block, scales.block_minimum
    if scales.groups is not None:
        scale = scale * scales.groups
    if scales.minimums is not None:
        assert minimum is not None
        minimum = minimum * scales.minimums
    codes = _split(kind.codes(blocks).float(), scale.shape[-1], -1)
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

    blocks = _split(rows, -1, kind.size)
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

    chunks = _split(F.pad(codes, (0, -codes.shape[1] % CHUNK)), -1, 2, CHUNK // 2)
    return (chunks[:, :, 0] | chunks[:, :, 1] << 4).flatten(1)


def _split(tensor: Tensor, *sizes: int) -> Tensor:
    """The last dimension as several."""
    return tensor.reshape(*tensor.shape[:-1], *sizes)


def _halves(blocks: Tensor, place: int) -> Tensor:
    """(..., B, size) → (..., B, 1) float32, of the float16 that begins at a byte."""
    import torch

    return blocks[..., place : place + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """(..., n) bytes → (..., 2 n) halves of them: all lower ones, then all upper ones."""
    import torch

    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _bits(packed: Tensor, width: int) -> Tensor:
    """(..., n) bytes → (..., 8 / width, n): their lowest bits, then the next ones, up to the highest."""
    import torch

    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
    return (packed[..., None, :] >> shifts[:, None]) & ((1 << width) - 1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """(..., 4) bytes → (..., 32): the fifth bit of each code of a block, ready to be added to it."""
    return _bits(packed, 1).transpose(-1, -2).flatten(-2) << 4


def _q4_0(blocks: Tensor) -> Scales:
    scale = _halves(blocks, 0)
    return Scales(scale, block_minimum=scale * 8)


def _q4_1(blocks: Tensor) -> Scales:
    return Scales(_halves(blocks, 0), block_minimum=-_halves(blocks, 2))


def _q5_0(blocks: Tensor) -> Scales:
    scale = _halves(blocks, 0)
    return Scales(scale, block_minimum=scale * 16)


def _q5_codes(start: int) -> Callable[[Tensor], Tensor]:
    """Codes of Q5_0 and Q5_1: from byte ``start`` on the fifth bits, and then the others."""

    def codes(blocks: Tensor) -> Tensor:
        return _nibbles(blocks[..., start + 4 :]) | _fifth_bits(blocks[..., start : start + 4])

    return codes


def _q4_k_codes(blocks: Tensor) -> Tensor:
    return _nibbles(_split(blocks[..., 16:], 4, 32)).flatten(-2)


def _q5_k_codes(blocks: Tensor) -> Tensor:
    low = _nibbles(_split(blocks[..., 48:], 4, 32)).flatten(-2)
    return low | _bits(blocks[..., 16:48], 1).flatten(-2) << 4


def _q4_k(blocks: Tensor) -> Scales:
    """Scales of Q4_K and Q5_K: 8, and 8 minimums, of six bits each in twelve bytes."""
    import torch

    low, high, mixed = _split(blocks[..., 4:16], 3, 4).unbind(-2)
    groups = torch.cat((low & 63, (mixed & 15) | (low >> 2 & 48)), dim=-1)
    minimums = torch.cat((high & 63, (mixed >> 4) | (high >> 2 & 48)), dim=-1)
    return Scales(_halves(blocks, 0), groups, _halves(blocks, 2), minimums)


def _q6_k_codes(blocks: Tensor) -> Tensor:
    """Two halves of a block, each with 64 bytes of lower bits and 32 of upper ones, which count from -32."""
    import torch

    low = _nibbles(_split(blocks[..., :128], 2, 64))
    high = _bits(_split(blocks[..., 128:192], 2, 32), 2).flatten(-2)
    return ((low | high << 4).flatten(-2) - 32).view(torch.int8)


def _q6_k(blocks: Tensor) -> Scales:
    import torch

    return Scales(_halves(blocks, 208), blocks[..., 192:208].contiguous().view(torch.int8))


def _q8_0_codes(blocks: Tensor) -> Tensor:
    import torch

    return blocks[..., 2:].contiguous().view(torch.int8)


_KINDS = (
    BlockType(
        name="Q4_0",
        inputs=32,
        size=18,
        grouped="int4_32",
        codes=lambda blocks: _nibbles(blocks[..., 2:]),
        scales=_q4_0,
    ),
    BlockType(
        name="Q4_1",
        inputs=32,
        size=20,
        grouped="int4_32",
        codes=lambda blocks: _nibbles(blocks[..., 4:]),
        scales=_q4_1,
    ),
    BlockType(name="Q5_0", inputs=32, size=22, codes=_q5_codes(2), scales=_q5_0),
    BlockType(name="Q5_1", inputs=32, size=24, codes=_q5_codes(4), scales=_q4_1),
    BlockType(
        name="Q8_0",
        inputs=32,
        size=34,
        grouped="int8_32",
        codes=_q8_0_codes,
        scales=lambda blocks: Scales(_halves(blocks, 0)),
    ),
    BlockType(name="Q4_K", inputs=256, size=144, grouped="int4", codes=_q4_k_codes, scales=_q4_k),
    BlockType(name="Q5_K", inputs=256, size=176, codes=_q5_k_codes, scales=_q4_k),
    BlockType(
        name="Q6_K", inputs=256, size=210, grouped="int8_16", codes=_q6_k_codes, scales=_q6_k
    ),
)
BLOCKS: Mapping[str, BlockType] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""The types that are read, by name."""
