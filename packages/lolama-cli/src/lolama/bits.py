"""``quantize=``: how many bits the weights of a model get."""

from __future__ import annotations

from typing import Literal

from lolama_core.protocols.arguments import truth
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError

Quantize = bool | Literal[4, 8]
"""A number of bits; True is 8, and False leaves weights as they are stored."""


def number_of_bits(quantize: object) -> Literal[0, 4, 8]:
    """The number of bits that weights get; 0 leaves them as they are stored.

    Raises:
        UsageError: if ``quantize`` is none of `Quantize`.

    Example:
        >>> number_of_bits(True)
        8
    """
    if type(quantize) is int and quantize in (4, 8):
        return 4 if quantize == 4 else 8
    try:
        return 8 if truth("quantize", quantize) else 0
    except UsageError:
        reason = f"{shown(quantize)} is no number of bits"
        raise UsageError("quantize", reason, "give True, False, 4 or 8") from None
