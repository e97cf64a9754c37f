"""Keys and values as they lie in a cache."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def store_codes(vector, x, column, inside, head_dim):  # type: ignore[no-untyped-def]
    """Codes of one byte and the two bytes of their scale, as `lolama_core.runtime.int8_cache` makes them."""
    most = tl.max(tl.where(inside, tl.abs(x), 0.0), axis=0)
    # 0 is added as many times as there are numbers that are finite, and NaN for any other.
    spoiled = tl.sum(tl.where(inside, x * 0.0, 0.0), axis=0)
    bits = (most / 127.0).to(tl.int32, bitcast=True) + 0xFFFF
    upper = tl.where(spoiled == 0.0, bits >> 16, 0x7FC0)
    scale = (upper << 16).to(tl.float32, bitcast=True)
    exact = tl.where(scale > 0.0, x / scale, 0.0)
    # Adding this leaves no fraction, and rounds ties to even.
    codes = (exact + 12582912.0) - 12582912.0
    tl.store(vector + column, codes.to(tl.int8), mask=inside)
    tl.store((vector + head_dim).to(tl.pointer_type(tl.int16), bitcast=True), upper.to(tl.int16))


@triton.jit
def scales_of(vectors, seen, head_dim):  # type: ignore[no-untyped-def]
    """The scales of stored vectors, float32."""
    place = (vectors + head_dim).to(tl.pointer_type(tl.int16), bitcast=True)
    upper = tl.load(place, mask=seen, other=0).to(tl.int32)
    return (upper << 16).to(tl.float32, bitcast=True)


def strides(keys: Tensor) -> tuple[int, int, int]:
    """Positions of a page; positions from a page to the next in memory, and from a head to the next."""
    page_stride, head_stride, position_stride, _ = keys.stride()
    return keys.shape[2], page_stride // position_stride, head_stride // position_stride
