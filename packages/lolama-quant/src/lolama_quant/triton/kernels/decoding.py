"""What a decoding step of one row does between its products."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lolama_quant.triton.kernels.overlap import can_overlap, let_next_begin, wait_for_inputs

_TILE_HEADS = 16  # the least that tl.dot takes
_BLOCK_KEYS = 64
_PROGRAMS = 256
"""Attention is cut into about this many programs: twice as many as a large GPU runs at a time."""


@triton.jit
def _store_codes(vector, x, column, inside, head_dim):  # type: ignore[no-untyped-def]
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
def _scales(vectors, seen, head_dim):  # type: ignore[no-untyped-def]
    """The scales of stored vectors, float32."""
    place = (vectors + head_dim).to(tl.pointer_type(tl.int16), bitcast=True)
    upper = tl.load(place, mask=seen, other=0).to(tl.int32)
    return (upper << 16).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _rotate_kernel(  # type: ignore[no-untyped-def]
    projected,
    cos,
    sin,
    position,
    queries,
    keys,
    values,
    pages,
    page_size,
    page_stride,
    head_stride,
    heads,
    kv_heads,
    head_dim,
    CODES: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head: a query is turned, a key is turned and stored, a value is stored."""
    let_next_begin(OVERLAPS)
    wait_for_inputs(OVERLAPS)
    head = tl.program_id(0)
    place = tl.load(position)
    in_head = tl.load(pages + place // page_size) * page_stride + place % page_size
    column = tl.arange(0, BLOCK)
    inside = column < head_dim
    start = projected + head * head_dim
    x = tl.load(start + column, mask=inside, other=0.0)
    if head >= heads + kv_heads:
        row = (head - heads - kv_heads) * head_stride + in_head
        if CODES:
            _store_codes(values + row * (head_dim + 2), x, column, inside, head_dim)
        else:
            tl.store(values + row * head_dim + column, x.to(values.dtype.element_ty), mask=inside)
    else:
        other = tl.load(start + (column + head_dim // 2) % head_dim, mask=inside, other=0.0)
        turned = x * tl.load(cos + column, mask=inside, other=0.0)
        turned += other * tl.load(sin + column, mask=inside, other=0.0)
        if head >= heads:
            row = (head - heads) * head_stride + in_head
            if CODES:
                _store_codes(keys + row * (head_dim + 2), turned, column, inside, head_dim)
            else:
                tl.store(
                    keys + row * head_dim + column, turned.to(keys.dtype.element_ty), mask=inside
                )
        else:
            rounded = turned.to(queries.dtype.element_ty)
            tl.store(queries + head * head_dim + column, rounded, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _attend_kernel(  # type: ignore[no-untyped-def]
    queries,
    keys,
    values,
    pages,
    page_size,
    page_stride,
    head_stride,
    position,
    first_key,
    sums,
    largest,
    totals,
    group,
    head_dim,
    scale,
    CODES: tl.constexpr,
    OVERLAPS: tl.constexpr,
    PARTS: tl.constexpr,
    TILE_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """A part of the keys of one head, for the queries that share it (Dao 2023, flash decoding).

    sums (H, PARTS, head_dim): Σ exp(score − largest) v. largest, totals (H, PARTS): of the scores, and
    Σ exp(score − largest).
    """
    let_next_begin(OVERLAPS)
    wait_for_inputs(OVERLAPS)
    kv_head = tl.program_id(0)
    part = tl.program_id(1)
    first = tl.load(first_key)
    last = tl.load(position) + 1
    each = tl.cdiv(tl.cdiv(last - first, PARTS), BLOCK_KEYS) * BLOCK_KEYS
    begin = first + part * each
    end = tl.minimum(begin + each, last)
    head = tl.arange(0, TILE_HEADS)
    column = tl.arange(0, BLOCK_DIM)
    inside = column < head_dim
    exists = head < group
    query = tl.load(
        queries + (kv_head * group + head[:, None]) * head_dim + column[None, :],
        mask=exists[:, None] & inside[None, :],
        other=0.0,
    )
    above = tl.full((TILE_HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_HEADS,), tl.float32)
    weighted = tl.zeros((TILE_HEADS, BLOCK_DIM), tl.float32)
    for start in range(begin, end, BLOCK_KEYS):
        place = start + tl.arange(0, BLOCK_KEYS)
        seen = place < end
        page = tl.load(pages + place // page_size, mask=seen, other=0)
        row = kv_head * head_stride + page * page_stride + place % page_size
        width = head_dim + 2 if CODES else head_dim
        offset = row[:, None] * width + column[None, :]
        mask = seen[:, None] & inside[None, :]
        key = tl.load(keys + offset, mask=mask, other=0).to(query.dtype)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        if CODES:
            scores *= _scales(keys + row * width, seen, head_dim)[None, :]
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(above, tl.max(scores, axis=1))
        shares = tl.exp(scores - higher[:, None])
        shrink = tl.exp(above - higher)
        value = tl.load(values + offset, mask=mask, other=0).to(query.dtype)
        weighed = shares
        if CODES:
            of_values = _scales(values + row * width, seen, head_dim)
            weighed = tl.where(seen[None, :], shares * of_values[None, :], 0.0)
        product = tl.dot(weighed.to(value.dtype), value, input_precision="ieee")
        total = total * shrink + tl.sum(shares, axis=1)
        weighted = weighted * shrink[:, None] + product
        above = higher
    place = (kv_head * group + head) * PARTS + part
    tl.store(largest + place, above, mask=exists)
    tl.store(totals + place, total, mask=exists)
    tl.store(
        sums + place[:, None] * head_dim + column[None, :],
        weighted,
        mask=exists[:, None] & inside[None, :],
    )


@triton.jit  # type: ignore[untyped-decorator]
def _join_kernel(  # type: ignore[no-untyped-def]
    sums,
    largest,
    totals,
    y,
    head_dim,
    OVERLAPS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """The parts of one head → y (H, head_dim). A part without keys weighs nothing."""
    let_next_begin(OVERLAPS)
    wait_for_inputs(OVERLAPS)
    head = tl.program_id(0)
    part = head * PARTS + tl.arange(0, PARTS)
    column = tl.arange(0, BLOCK_DIM)
    inside = column < head_dim
    above = tl.load(largest + part)
    shares = tl.exp(above - tl.max(above, axis=0))
    total = tl.sum(shares * tl.load(totals + part), axis=0)
    weighted = tl.load(
        sums + part[:, None] * head_dim + column[None, :], mask=inside[None, :], other=0.0
    )
    result = tl.sum(shares[:, None] * weighted, axis=0) / total
    tl.store(y + head * head_dim + column, result.to(y.dtype.element_ty), mask=inside)


def rotate_and_store(
    projected: Tensor,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    pages: Tensor,
) -> None:
    """Turn queries and keys, and put keys and values into the cache.

    Args:
        projected: ((H + 2 K) · head_dim,) float32: queries, keys, values.
        cos, sin: (head_dim,) float32, as `protocols.DecoderStep` has them.
        position: (1,) int64.
        queries: (H, head_dim), written.
        keys, values: (pages, K, positions of a page, head_dim), or head_dim + 2 of int8; written at
            ``position`` of the row.
        pages: (N,) int64, those of the row.
    """
    heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    block = triton.next_power_of_2(head_dim)
    sizes = (*_strides(keys), heads, kv_heads, head_dim)
    grid = (heads + 2 * kv_heads,)
    overlaps = can_overlap(keys.device)
    _rotate_kernel[grid](
        projected,
        cos,
        sin,
        position,
        queries,
        keys,
        values,
        pages,
        *sizes,
        CODES=keys.dtype == torch.int8,
        OVERLAPS=overlaps,
        BLOCK=block,
        num_warps=1,
        launch_pdl=overlaps,
    )


def _strides(keys: Tensor) -> tuple[int, int, int]:
    """Positions of a page; positions from a page to the next in memory, and from a head to the next."""
    page_stride, head_stride, position_stride, _ = keys.stride()
    return keys.shape[2], page_stride // position_stride, head_stride // position_stride


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    pages: Tensor,
    position: Tensor,
    first_key: Tensor,
    y: Tensor,
) -> None:
    """Attention of one position over keys from ``first_key`` to ``position``, both (1,) int64, into y.

    Args:
        queries, y: (H, head_dim) in the dtype of the keys, or in that of products where keys are int8.
        keys, values: (pages, K, positions of a page, head_dim), or head_dim + 2 of int8.
        pages: (N,) int64, those of the row.
    """
    heads, head_dim = queries.shape
    kv_heads, capacity = keys.shape[1], len(pages) * keys.shape[2]
    group = heads // kv_heads
    parts = triton.next_power_of_2(max(1, _PROGRAMS // kv_heads))
    parts = min(parts, triton.next_power_of_2(triton.cdiv(capacity, _BLOCK_KEYS)))
    sums = torch.empty(heads, parts, head_dim, dtype=torch.float32, device=keys.device)
    largest, totals = torch.empty(2, heads, parts, dtype=torch.float32, device=keys.device)
    block = max(16, triton.next_power_of_2(head_dim))
    overlaps = can_overlap(keys.device)
    _attend_kernel[(kv_heads, parts)](
        queries,
        keys,
        values,
        pages,
        *_strides(keys),
        position,
        first_key,
        sums,
        largest,
        totals,
        group,
        head_dim,
        head_dim**-0.5,
        CODES=keys.dtype == torch.int8,
        OVERLAPS=overlaps,
        PARTS=parts,
        TILE_HEADS=max(_TILE_HEADS, triton.next_power_of_2(group)),
        BLOCK_DIM=block,
        BLOCK_KEYS=_BLOCK_KEYS,
        launch_pdl=overlaps,
    )
    _join_kernel[(heads,)](
        sums,
        largest,
        totals,
        y,
        head_dim,
        OVERLAPS=overlaps,
        PARTS=parts,
        BLOCK_DIM=block,
        launch_pdl=overlaps,
    )
