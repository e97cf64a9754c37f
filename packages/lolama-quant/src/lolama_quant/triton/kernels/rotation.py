"""A new position's queries, keys and values: normed, turned, and put where attention reads them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lolama_quant.triton.kernels.norms import NORM_BLOCK, inverse_rms
from lolama_quant.triton.kernels.overlap import can_overlap, let_next_begin, wait_for_inputs
from lolama_quant.triton.kernels.stored import store_codes, strides


@triton.jit  # type: ignore[untyped-decorator]
def _rotate_kernel(  # type: ignore[no-untyped-def]
    projected,
    cos,
    sin,
    q_norm,
    k_norm,
    query_scale,
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
    eps,
    WIDE_NORM: tl.constexpr,
    CODES: tl.constexpr,
    OVERLAPS: tl.constexpr,
    BLOCK: tl.constexpr,
    NORM_BLOCK: tl.constexpr,
):
    """One head: a query is turned, a key is turned and stored, a value is stored.

    q_norm, k_norm and query_scale may be None. With WIDE_NORM a norm is over all heads of queries, or keys.
    """
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
            store_codes(values + row * (head_dim + 2), x, column, inside, head_dim)
        else:
            tl.store(values + row * head_dim + column, x.to(values.dtype.element_ty), mask=inside)
    else:
        partner = (column + head_dim // 2) % head_dim
        other = tl.load(start + partner, mask=inside, other=0.0)
        if q_norm is not None:
            norm = tl.where(head >= heads, k_norm, q_norm)
            if WIDE_NORM:
                first = tl.where(head >= heads, heads, 0)
                size = tl.where(head >= heads, kv_heads, heads) * head_dim
                scale = inverse_rms(projected + first * head_dim, size, eps, NORM_BLOCK)
                norm += (head - first) * head_dim
            else:
                scale = tl.rsqrt(tl.sum(x * x, axis=0) / head_dim + eps)
            x *= scale * tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
            other *= scale * tl.load(norm + partner, mask=inside, other=0.0).to(tl.float32)
        turned = x * tl.load(cos + column, mask=inside, other=0.0)
        turned += other * tl.load(sin + column, mask=inside, other=0.0)
        if head >= heads:
            row = (head - heads) * head_stride + in_head
            if CODES:
                store_codes(keys + row * (head_dim + 2), turned, column, inside, head_dim)
            else:
                tl.store(
                    keys + row * head_dim + column, turned.to(keys.dtype.element_ty), mask=inside
                )
        else:
            if query_scale is not None:
                turned *= tl.load(query_scale)
            rounded = turned.to(queries.dtype.element_ty)
            tl.store(queries + head * head_dim + column, rounded, mask=inside)


def rotate_and_store(
    projected: Tensor,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    pages: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
    query_scale: Tensor | None = None,
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
        q_norm, k_norm: Queries and keys go through RMSNorm with these weights and ``eps`` first: (head_dim,)
            of each head, or (H · head_dim,) and (K · head_dim,) of all of them.
        query_scale: (1,) float32: what queries are multiplied with.
    """
    heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    block = triton.next_power_of_2(head_dim)
    sizes = (*strides(keys), heads, kv_heads, head_dim)
    grid = (heads + 2 * kv_heads,)
    overlaps = can_overlap(keys.device)
    _rotate_kernel[grid](
        projected,
        cos,
        sin,
        q_norm,
        k_norm,
        query_scale,
        position,
        queries,
        keys,
        values,
        pages,
        *sizes,
        eps,
        WIDE_NORM=q_norm is not None and len(q_norm) != head_dim,
        CODES=keys.dtype == torch.int8,
        OVERLAPS=overlaps,
        BLOCK=block,
        NORM_BLOCK=NORM_BLOCK,
        num_warps=1,
        launch_pdl=overlaps,
    )
