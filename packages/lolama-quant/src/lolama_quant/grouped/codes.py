"""The tensors of a grouped weight and what they stand for: the slow and obvious reference of its products.

`protocols.grouped` says how they are laid out. Legend: N outputs, K inputs, G groups and B blocks of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lolama_core.protocols.grouped import CHUNK, GroupFormat

_HALF = CHUNK // 2


class GroupedRows(NamedTuple):
    """The numbers of a grouped weight, in the order of its inputs.

    Attributes:
        codes: (N, K), uint8 from 0 to 15 for four bits, else int8.
        block_scale: (N, B) float16.
        scale: (N, G), uint8 beside minimums, else int8; None where blocks are groups.
        block_minimum: (N, B) float16, or None without minimums.
        minimum: (N, G) uint8; None where blocks are groups, or without minimums.
    """

    codes: Tensor
    block_scale: Tensor
    scale: Tensor | None = None
    block_minimum: Tensor | None = None
    minimum: Tensor | None = None


def pack(rows: GroupedRows, form: GroupFormat) -> dict[str, Tensor]:
    """The tensors that are stored: last part of the name → tensor, as `GroupFormat.tensors` lists them."""
    packed = {"weight": pack_nibbles(rows.codes) if form.bits == 4 else rows.codes.contiguous()}
    if form.block != form.group:
        packed["group_scale"] = _side_by_side(
            [_by_block(one, form) for one in (rows.scale, rows.minimum) if one is not None]
        )
    of_blocks = [
        one[..., None] for one in (rows.block_scale, rows.block_minimum) if one is not None
    ]
    return packed | {"block_scale": _side_by_side(of_blocks)}


def unpack(tensors: Mapping[str, Tensor], form: GroupFormat, inputs: int) -> GroupedRows:
    """`pack` undone; ``inputs`` is K, which packed codes do not tell."""
    weight = tensors["weight"]
    parts = 2 if form.has_minimums else 1
    groups, size = -(-inputs // form.group), form.block // form.group
    by_block = len(weight), -(-inputs // form.block), parts
    codes = unpack_nibbles(weight, inputs) if form.bits == 4 else weight
    of_blocks = tensors["block_scale"].view(by_block)
    scale = minimum = None
    if form.block != form.group:
        of_groups = tensors["group_scale"].view(*by_block, size)
        scale = of_groups[:, :, 0].flatten(1)[:, :groups]
        minimum = of_groups[:, :, 1].flatten(1)[:, :groups] if form.has_minimums else None
    block_minimum = of_blocks[..., 1] if form.has_minimums else None
    return GroupedRows(codes, of_blocks[..., 0], scale, block_minimum, minimum)


def dequantize(tensors: Mapping[str, Tensor], form: GroupFormat, inputs: int) -> Tensor:
    """(N, K) float32: exactly what the tensors of `pack` stand for."""
    return dequantize_rows(unpack(tensors, form, inputs), form)


def dequantize_rows(rows: GroupedRows, form: GroupFormat) -> Tensor:
    """(N, K) float32: exactly what the numbers stand for."""
    inputs = rows.codes.shape[1]
    scale, minimum = group_scales(rows, form)
    values = scale.repeat_interleave(form.group, dim=1)[:, :inputs] * rows.codes
    if minimum is None:
        return values
    return values - minimum.repeat_interleave(form.group, dim=1)[:, :inputs]


def group_scales(rows: GroupedRows, form: GroupFormat) -> tuple[Tensor, Tensor | None]:
    """What codes are multiplied with, and what is then taken off: (N, G) float32 each, or no minimums."""
    groups = -(-rows.codes.shape[1] // form.group)

    def of_groups(of_block: Tensor, of_group: Tensor | None) -> Tensor:
        wide = of_block.float().repeat_interleave(form.block // form.group, dim=1)[:, :groups]
        return wide if of_group is None else wide * of_group

    scale = of_groups(rows.block_scale, rows.scale)
    if rows.block_minimum is None:
        return scale, None
    return scale, of_groups(rows.block_minimum, rows.minimum)


def pack_nibbles(codes: Tensor) -> Tensor:
    """(N, K) from 0 to 15 → (N, bytes) uint8, two in a byte; see `CHUNK`. Zeros follow the last input."""
    padded = F.pad(codes.to(torch.uint8), (0, -codes.shape[1] % CHUNK))
    low, high = padded.view(len(codes), padded.shape[1] // CHUNK, 2, _HALF).unbind(2)
    return (low | high << 4).flatten(1)


def unpack_nibbles(packed: Tensor, inputs: int) -> Tensor:
    """(N, bytes) → (N, K) uint8: `pack_nibbles` undone."""
    chunks = packed.view(len(packed), packed.shape[1] // _HALF, _HALF)
    return torch.stack((chunks & 15, chunks >> 4), dim=2).flatten(1)[:, :inputs]


def _by_block(of_groups: Tensor, form: GroupFormat) -> Tensor:
    """(N, G) → (N, B, groups of a block), with zeros for groups that the last block lacks."""
    size = form.block // form.group
    padded = F.pad(of_groups, (0, -of_groups.shape[1] % size))
    return padded.view(len(padded), padded.shape[1] // size, size)


def _side_by_side(parts: list[Tensor]) -> Tensor:
    """(N, B, n) each → (N, B · parts · n): of each block all parts, one behind the other."""
    return torch.cat(parts, dim=-1).flatten(1).contiguous()
