"""The types that tensors of GGUF files have: how many values a block holds, and in how many bytes.

The table is ggml's (``ggml.h`` and ``ggml-common.h`` of llama.cpp), with every type that may stand in a file,
so that the places of all tensors can be checked. Which of them lolama makes weights of is for the hub to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class GGUFType(NamedTuple):
    """One type: its name, values in a block, and bytes of a block. Plain numbers are blocks of one."""

    name: str
    values: int
    size: int


_SUPER = 256  # values in a block of the K, IQ and TQ types

TYPES: Mapping[int, GGUFType] = MappingProxyType(
    {
        0: GGUFType("F32", 1, 4),
        1: GGUFType("F16", 1, 2),
        2: GGUFType("Q4_0", 32, 18),
        3: GGUFType("Q4_1", 32, 20),
        6: GGUFType("Q5_0", 32, 22),
        7: GGUFType("Q5_1", 32, 24),
        8: GGUFType("Q8_0", 32, 34),
        9: GGUFType("Q8_1", 32, 40),
        10: GGUFType("Q2_K", _SUPER, 84),
        11: GGUFType("Q3_K", _SUPER, 110),
        12: GGUFType("Q4_K", _SUPER, 144),
        13: GGUFType("Q5_K", _SUPER, 176),
        14: GGUFType("Q6_K", _SUPER, 210),
        15: GGUFType("Q8_K", _SUPER, 292),
        16: GGUFType("IQ2_XXS", _SUPER, 66),
        17: GGUFType("IQ2_XS", _SUPER, 74),
        18: GGUFType("IQ3_XXS", _SUPER, 98),
        19: GGUFType("IQ1_S", _SUPER, 50),
        20: GGUFType("IQ4_NL", 32, 18),
        21: GGUFType("IQ3_S", _SUPER, 110),
        22: GGUFType("IQ2_S", _SUPER, 82),
        23: GGUFType("IQ4_XS", _SUPER, 136),
        24: GGUFType("I8", 1, 1),
        25: GGUFType("I16", 1, 2),
        26: GGUFType("I32", 1, 4),
        27: GGUFType("I64", 1, 8),
        28: GGUFType("F64", 1, 8),
        29: GGUFType("IQ1_M", _SUPER, 56),
        30: GGUFType("BF16", 1, 2),
        34: GGUFType("TQ1_0", _SUPER, 54),
        35: GGUFType("TQ2_0", _SUPER, 66),
        39: GGUFType("MXFP4", 32, 17),
        40: GGUFType("NVFP4", 64, 36),
        41: GGUFType("Q1_0", 128, 18),
    }
)
"""The number that a file gives → the type."""

GIVEN_UP: Mapping[int, str] = MappingProxyType(
    {
        4: "Q4_2",
        5: "Q4_3",
        31: "Q4_0_4_4",
        32: "Q4_0_4_8",
        33: "Q4_0_8_8",
        36: "IQ4_NL_4_4",
        37: "IQ4_NL_4_8",
        38: "IQ4_NL_8_8",
    }
)
"""Numbers of types that llama.cpp once wrote and reads no more → their names."""

_BY_NAME = {one.name: one for one in TYPES.values()}


def row_bytes(name: str, values: int) -> int:
    """The bytes of a row of ``values`` numbers, a multiple of the type's block.

    Example:
        >>> row_bytes("Q4_K", 512)
        288
    """
    found = _BY_NAME[name]
    return values // found.values * found.size
