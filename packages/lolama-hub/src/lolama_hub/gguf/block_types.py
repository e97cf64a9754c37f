"""The types of blocks that weights of GGUF files come in: where the bytes of each have scales and codes.

A row of a weight is cut into blocks of 32 or 256 inputs, and a block is a run of bytes: its scale, what other
scales there are, and codes of 3 to 8 bits. The places of all of these are llama.cpp's (ggml-common.h).
Legend: ... leading dimensions, N among them; B blocks of a row; G groups of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the codes of IQ4_NL and IQ4_XS stand for."""


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


def split(tensor: Tensor, *sizes: int) -> Tensor:
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


def _signed(codes: Tensor, zero: int) -> Tensor:
    """Codes that count from ``-zero``, as int8."""
    import torch

    return (codes - zero).view(torch.int8)


def _q5_0_codes(blocks: Tensor) -> Tensor:
    return _signed(_nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6]), 16)


def _q5_1_codes(blocks: Tensor) -> Tensor:
    return _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8])


def _q4_k_codes(blocks: Tensor) -> Tensor:
    return _nibbles(split(blocks[..., 16:], 4, 32)).flatten(-2)


def _q5_k_codes(blocks: Tensor) -> Tensor:
    low = _nibbles(split(blocks[..., 48:], 4, 32)).flatten(-2)
    return low | _bits(blocks[..., 16:48], 1).flatten(-2) << 4


def _q4_k(blocks: Tensor) -> Scales:
    """Scales of Q4_K and Q5_K: 8, and 8 minimums, of six bits each in twelve bytes."""
    import torch

    low, high, mixed = split(blocks[..., 4:16], 3, 4).unbind(-2)
    groups = torch.cat((low & 63, (mixed & 15) | (low >> 2 & 48)), dim=-1)
    minimums = torch.cat((high & 63, (mixed >> 4) | (high >> 2 & 48)), dim=-1)
    return Scales(_halves(blocks, 0), groups, _halves(blocks, 2), minimums)


def _q6_k_codes(blocks: Tensor) -> Tensor:
    """Two halves of a block, each with 64 bytes of lower bits and 32 of upper ones."""
    low = _nibbles(split(blocks[..., :128], 2, 64))
    high = _bits(split(blocks[..., 128:192], 2, 32), 2).flatten(-2)
    return _signed((low | high << 4).flatten(-2), 32)


def _q6_k(blocks: Tensor) -> Scales:
    import torch

    return Scales(_halves(blocks, 208), blocks[..., 192:208].contiguous().view(torch.int8))


def _q8_0_codes(blocks: Tensor) -> Tensor:
    import torch

    return blocks[..., 2:].contiguous().view(torch.int8)


def _q3_k_codes(blocks: Tensor) -> Tensor:
    """Two halves of a block, each with 32 bytes of lower bits; the third ones stand ahead of both."""
    low = _bits(split(blocks[..., 32:96], 2, 32), 2).flatten(-3)
    return _signed(low | _bits(blocks[..., :32], 1).flatten(-2) << 2, 4)


def _q3_k(blocks: Tensor) -> Scales:
    low, high = _nibbles(blocks[..., 96:104]), _bits(blocks[..., 104:108], 2).flatten(-2)
    return Scales(_halves(blocks, 108), _signed(low | high << 4, 32))


def _iq4(codes: Tensor) -> Tensor:
    import torch

    return torch.tensor(_IQ4, dtype=torch.int8, device=codes.device)[codes.int()]


def _iq4_xs(blocks: Tensor) -> Scales:
    """Eight scales of six bits, each for two groups of 16."""
    import torch

    low, high = blocks[..., 4:8], _bits(blocks[..., 2:4], 2).transpose(-1, -2).flatten(-2)
    low = torch.stack((low & 15, low >> 4), dim=-1).flatten(-2)
    return Scales(_halves(blocks, 0), _signed(low | high << 4, 32).repeat_interleave(2, dim=-1))


def _scale(blocks: Tensor) -> Scales:
    """Scales of types that have one, which stands first."""
    return Scales(_halves(blocks, 0))


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
    BlockType(name="Q5_0", inputs=32, size=22, grouped="int8_32", codes=_q5_0_codes, scales=_scale),
    BlockType(name="Q5_1", inputs=32, size=24, codes=_q5_1_codes, scales=_q4_1),
    BlockType(name="Q8_0", inputs=32, size=34, grouped="int8_32", codes=_q8_0_codes, scales=_scale),
    BlockType(
        name="Q3_K", inputs=256, size=110, grouped="int8_16", codes=_q3_k_codes, scales=_q3_k
    ),
    BlockType(name="Q4_K", inputs=256, size=144, grouped="int4", codes=_q4_k_codes, scales=_q4_k),
    BlockType(name="Q5_K", inputs=256, size=176, codes=_q5_k_codes, scales=_q4_k),
    BlockType(
        name="Q6_K", inputs=256, size=210, grouped="int8_16", codes=_q6_k_codes, scales=_q6_k
    ),
    BlockType(
        name="IQ4_NL",
        inputs=32,
        size=18,
        grouped="int8_32",
        codes=lambda blocks: _iq4(_nibbles(blocks[..., 2:])),
        scales=_scale,
    ),
    BlockType(
        name="IQ4_XS",
        inputs=256,
        size=136,
        grouped="int8_16",
        codes=lambda blocks: _iq4(_nibbles(split(blocks[..., 8:], 8, 16)).flatten(-2)),
        scales=_iq4_xs,
    ),
)
BLOCKS: Mapping[str, BlockType] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""The types that are read, by name."""
