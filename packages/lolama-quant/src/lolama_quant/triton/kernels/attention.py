"""Attention of one new position over the keys and values of its row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lolama_quant.triton.kernels.overlap import can_overlap, let_next_begin, wait_for_inputs
from lolama_quant.triton.kernels.stored import scales_of, strides

_LEAST = 16  # that tl.dot takes
_MOST_KEYS = 64
_TILE_BYTES = 1 << 15
"""A tile of keys takes these at most: shared memory has room for some, which load meanwhile."""
_PROGRAMS = 256
"""Attention is cut into about this many programs: twice as many as a large GPU runs at a time."""


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
    CAP: tl.constexpr,
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
            scores *= scales_of(keys + row * width, seen, head_dim)[None, :]
        if CAP is not None:
            # tanh u is 2 sigmoid(2 u) - 1.
            scores = CAP * (2.0 * tl.sigmoid(scores * (2.0 / CAP)) - 1.0)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(above, tl.max(scores, axis=1))
        shares = tl.exp(scores - higher[:, None])
        shrink = tl.exp(above - higher)
        value = tl.load(values + offset, mask=mask, other=0).to(query.dtype)
        weighed = shares
        if CODES:
            of_values = scales_of(values + row * width, seen, head_dim)
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


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    pages: Tensor,
    position: Tensor,
    first_key: Tensor,
    y: Tensor,
    *,
    scale: float | None = None,
    cap: float | None = None,
) -> None:
    """Attention of one position over keys from ``first_key`` to ``position``, both (1,) int64, into y.

    Args:
        queries, y: (H, head_dim) in the dtype of the keys, or in that of products where keys are int8.
        keys, values: (pages, K, positions of a page, head_dim), or head_dim + 2 of int8.
        pages: (N,) int64, those of the row.
        scale: What q kᵀ is multiplied with. None: 1 / √head_dim.
        cap: Scores become cap · tanh(score / cap), if it is given.
    """
    heads, head_dim = queries.shape
    kv_heads, capacity = keys.shape[1], len(pages) * keys.shape[2]
    group = heads // kv_heads
    block = max(_LEAST, triton.next_power_of_2(head_dim))
    block_keys = min(_MOST_KEYS, max(_LEAST, _TILE_BYTES // (block * queries.itemsize)))
    parts = triton.next_power_of_2(max(1, _PROGRAMS // kv_heads))
    parts = min(parts, triton.next_power_of_2(triton.cdiv(capacity, block_keys)))
    sums = torch.empty(heads, parts, head_dim, dtype=torch.float32, device=keys.device)
    largest, totals = torch.empty(2, heads, parts, dtype=torch.float32, device=keys.device)
    overlaps = can_overlap(keys.device)
    _attend_kernel[(kv_heads, parts)](
        queries,
        keys,
        values,
        pages,
        *strides(keys),
        position,
        first_key,
        sums,
        largest,
        totals,
        group,
        head_dim,
        head_dim**-0.5 if scale is None else scale,
        CAP=cap,
        CODES=keys.dtype == torch.int8,
        OVERLAPS=overlaps,
        PARTS=parts,
        TILE_HEADS=max(_LEAST, triton.next_power_of_2(group)),
        BLOCK_DIM=block,
        BLOCK_KEYS=block_keys,
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
