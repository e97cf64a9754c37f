"""Weights as small whole numbers with a scale for each group of inputs: four bits, and what GGUF files hold.

A row's inputs are cut into groups, which have a scale each, and the groups into blocks, whose scales are of
float16. The last group and the last block of a row may be shorter. The values of ``int4`` are those of
llama.cpp's Q4_K, in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CHUNK = 64
"""Inputs whose codes of four bits lie together: byte j of 32 has that of input j in its low half, and that of
input j + 32 in its high half."""


@dataclass(frozen=True, kw_only=True)
class GroupFormat:
    """How the weight (N, K) of a linear or an embedding is stored, in up to three tensors.

    A value of a format with minimums is ``block_scale · scale · code − block_minimum · minimum``, and of one
    without ``block_scale · scale · code``. A format whose blocks are its groups has neither ``scale`` nor
    ``minimum``: both are 1. Products are taken in float32, in this order.

    Attributes:
        name: As a checkpoint's ``quantization.formats`` calls it.
        bits: How many a code has: 4, from 0 to 15, or 8, from -128 to 127.
        group: Inputs that share a scale.
        block: Inputs that share a block scale: a multiple of ``group``, or equal to it.
        has_minimums: Whether a minimum is taken off.
    """

    name: str
    bits: int
    group: int
    block: int
    has_minimums: bool

    def tensors(self, outputs: int, inputs: int) -> dict[str, tuple[str, tuple[int, int]]]:
        """What is stored of a weight (N, K): last part of the name → dtype, in safetensors' words, and shape.

        ``weight``: the codes; of four bits two in a byte, see `CHUNK`, and zeros behind the last input.
        ``group_scale``: of each block the scales of its groups, and behind them their minimums; zeros for
        groups that the last block lacks. Not there where blocks are groups.
        ``block_scale``: of each block its scale, and behind it its minimum.
        """
        blocks = -(-inputs // self.block)
        parts = 2 if self.has_minimums else 1
        if self.bits == 4:
            weight = ("U8", (outputs, -(-inputs // CHUNK) * CHUNK // 2))
        else:
            weight = ("I8", (outputs, inputs))
        found = {"weight": weight}
        if self.block != self.group:
            scales = (outputs, blocks * parts * (self.block // self.group))
            found["group_scale"] = ("U8" if self.has_minimums else "I8", scales)
        return found | {"block_scale": ("F16", (outputs, blocks * parts))}


FORMATS: Mapping[str, GroupFormat] = MappingProxyType(
    {
        one.name: one
        for one in (
            GroupFormat(name="int4", bits=4, group=32, block=256, has_minimums=True),
            GroupFormat(name="int4_32", bits=4, group=32, block=32, has_minimums=True),
            GroupFormat(name="int8_16", bits=8, group=16, block=256, has_minimums=False),
            GroupFormat(name="int8_32", bits=8, group=32, block=32, has_minimums=False),
        )
    }
)
"""Q4_K; Q4_0 and Q4_1; Q6_K; Q8_0. Scales and minimums of ``int4`` are from 0 to 63."""
