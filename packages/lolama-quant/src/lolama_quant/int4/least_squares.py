"""The grid of a row of four bits: the scales and minimums under which its codes lose least.

A value is ``scale · code - minimum`` with codes from 0 to 15, for each group of 32 inputs. Both numbers of a
group are whole, from 0 to 63, under a scale and a minimum in float16 for each block of 256, as in Q4_K.
They are found by least squares, in which an input counts as much as it carries: E[x²], or all alike without
calibration. Legend: N rows, K inputs, B blocks of 8 groups of 32; ``...`` is whatever groups there are.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.grouped import FORMATS
from lolama_quant.grouped.codes import GroupedRows

FORM = FORMATS["int4"]
GROUPS = FORM.block // FORM.group
TOP_CODE = 15
TOP_SCALE = 63

_PARTS = (0.7, 0.8, 0.9, 1.0)
"""Parts of a group's range that its codes are tried for: one large value may coarsen all others too much."""

_ROUNDS = 2
"""Times that codes and scales are fitted to each other. Each further one gains half a percent."""

_CHUNK = 1 << 17
"""Numbers of a weight that are fitted at once, so that they stay in a processor's cache."""

_TINY, _LARGEST = 1e-30, torch.finfo(torch.float16).max

_LEAST_COUNT = 1e-3
"""What an input counts at least, in shares of the mean: one that was always 0 may be something else later."""


class Grid(NamedTuple):
    """Scales and minimums of rows.

    Attributes:
        block_scale, block_minimum: (N, B) float16, not below 0.
        scale, minimum: (N, B, 8) float32, whole numbers from 0 to 63.
    """

    block_scale: Tensor
    block_minimum: Tensor
    scale: Tensor
    minimum: Tensor

    def of_groups(self) -> tuple[Tensor, Tensor]:
        """What codes are multiplied with, and what is then taken off: (N, B, 8) float32 each."""
        return (
            self.block_scale.float()[..., None] * self.scale,
            self.block_minimum.float()[..., None] * self.minimum,
        )


def quantize_rows(weight: Tensor, name: str, importance: Tensor | None = None) -> GroupedRows:
    """(N, K) floating-point → its rows in four bits, each number by itself the nearest.

    Args:
        weight: The weight of a linear or of an embedding.
        name: For errors.
        importance: (K,) how much an input counts: E[x²]. All alike if not given.

    Raises:
        ModelError: naming the weight, if it holds NaN or Inf, or what is too large for float16 scales.
    """
    check_numbers(weight, name)
    inputs = weight.shape[1]
    if importance is None:
        importance = weight.new_ones(inputs, dtype=torch.float32)
    counts = by_group(counted(importance)[None])[0]
    pieces = []
    for part in torch.split(weight.detach(), max(1, _CHUNK // max(inputs, 1))):
        groups = by_group(part.float())
        grid = fit_blocks(groups, counts)
        codes = nearest(groups, *grid.of_groups())
        pieces.append(stored(codes.flatten(1)[:, :inputs], grid))
    return GroupedRows(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def check_numbers(weight: Tensor, name: str) -> None:
    """Refuse a weight (N, K) that no grid is for.

    Raises:
        ModelError: naming the weight and the row.
    """
    most = _LARGEST * TOP_SCALE  # as a minimum, too
    low, high = torch.aminmax(weight.detach(), dim=1)
    wrong = ~((high.float() <= most) & (low.float() >= -most))  # NaN is neither
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        reason = f"holds NaN, Inf or a number beyond {most:.0e}, in row {row}"
        raise ModelError(name, reason, "download the model again, or use another conversion of it")


def counted(importance: Tensor) -> Tensor:
    """(K,) → shares of its mean, none of them 0; all alike if they say nothing."""
    mean = importance.float().mean()
    if not bool(mean.isfinite() & (mean > 0)):
        return torch.ones_like(importance, dtype=torch.float32)
    return (importance.float() / mean).clamp(min=_LEAST_COUNT)


def by_group(rows: Tensor) -> Tensor:
    """(N, K) → (N, B, 8, 32), with zeros behind the last input."""
    padded = F.pad(rows, (0, -rows.shape[1] % FORM.block))
    return padded.view(len(rows), padded.shape[1] // FORM.block, GROUPS, FORM.group)


def fit_blocks(groups: Tensor, counts: Tensor) -> Grid:
    """(N, B, 8, 32) numbers, (B, 8, 32) what each input counts → the grid for them."""
    scale, minimum = fit_groups(groups, counts)
    block_scale, block_minimum = _block_of(scale), _block_of(minimum)
    whole = fit_whole(groups, counts, (scale, minimum), (block_scale, block_minimum))
    return Grid(block_scale, block_minimum, *whole)


def fit_groups(groups: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 32) → scale and minimum of each group, (...) float32: what they would be without rounding."""
    low = groups.amin(-1).clamp(max=0)
    width = groups.amax(-1).maximum(low) - low
    best: tuple[Tensor, ...] = ()
    for part in _PARTS:
        scale = width * (part / TOP_CODE)
        minimum = (-low - width * ((1 - part) / 2)).clamp(min=0)
        for _ in range(_ROUNDS):
            scale, minimum = _solve(groups, counts, nearest(groups, scale, minimum))
        best = _better(best, (loss(groups, counts, scale, minimum), scale, minimum))
    return best[1], best[2]


def fit_whole(
    groups: Tensor,
    counts: Tensor,
    wanted: tuple[Tensor, Tensor],
    of_block: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """The whole scales and minimums (..., G), from 0 to 63, under those of blocks.

    Args:
        groups, counts: (..., G, 32).
        wanted: Scales and minimums (..., G) that they would best be; their neighbors are tried, too.
        of_block: The scale and the minimum of each block, (...) float16.
    """
    unit, low_unit = (one.float()[..., None] for one in of_block)
    scale, minimum = _in_units(wanted[0], unit), _in_units(wanted[1], low_unit)
    best: tuple[Tensor, ...] = ()
    for more, lower in itertools.product((0, -1, 1), repeat=2):
        near = (scale + more).clamp(0, TOP_SCALE), (minimum + lower).clamp(0, TOP_SCALE)
        lost = loss(groups, counts, near[0] * unit, near[1] * low_unit)
        best = _better(best, (lost, *near))
    return best[1], best[2]


def nearest(groups: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """(..., 32) under scales and minimums (...) → the nearest codes, as float32."""
    shifted = groups + minimum[..., None]
    return shifted.mul_(inverse(scale)[..., None]).round_().clamp_(0, TOP_CODE)


def inverse(scale: Tensor) -> Tensor:
    """1 / scale, or 0 for those that no float16 is small enough for: their codes are zeros."""
    return torch.where(scale > _TINY, 1 / scale, 0)


def loss(groups: Tensor, counts: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """Σ count · error² of each group (...), with the nearest codes."""
    codes = nearest(groups, scale, minimum)
    error = codes.mul_(scale[..., None]).sub_(minimum[..., None]).sub_(groups)
    return (error.square_() * counts).sum(-1)


def stored(codes: Tensor, grid: Grid) -> GroupedRows:
    """(N, K) codes and their grid → the numbers as they are stored."""
    groups = -(-codes.shape[1] // FORM.group)
    return GroupedRows(
        codes=codes.to(torch.uint8),
        block_scale=grid.block_scale,
        scale=grid.scale.flatten(1)[:, :groups].to(torch.uint8),
        block_minimum=grid.block_minimum,
        minimum=grid.minimum.flatten(1)[:, :groups].to(torch.uint8),
    )


def _solve(groups: Tensor, counts: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the minimum, neither below 0, with which these codes lose least: two normal equations."""
    weighted = counts * codes
    total, first = counts.sum(-1), weighted.sum(-1)
    second = (weighted * codes).sum(-1)
    value, product = (counts * groups).sum(-1), (weighted * groups).sum(-1)
    determinant = total * second - first * first
    smallest = torch.finfo(torch.float32).tiny
    solvable = determinant > 1e-6 * total * second  # else all codes are alike: one number is enough
    divisor = torch.where(solvable, determinant, 1)
    minimum = torch.where(
        solvable, (first * product - second * value) / divisor, -value / total.clamp(min=smallest)
    )
    both = solvable & (minimum > 0)
    alone = product / second.clamp(min=smallest)
    scale = torch.where(both, (total * product - first * value) / divisor, alone)
    return scale.clamp_(min=0), minimum.clamp_(min=0)


def _block_of(of_groups: Tensor) -> Tensor:
    """(N, B, 8) → (N, B) float16: a 63rd of the largest, rounded up so that 63 of it are enough."""
    unit = (of_groups.amax(-1) / TOP_SCALE).clamp(max=_LARGEST)
    half = unit.half()
    # Numbers above 0 are in the order of their bits. The smallest ones lie far apart.
    next_half = (half.view(torch.int16) + 1).view(torch.float16)
    return torch.where(half.float() < unit, next_half, half)


def _in_units(of_groups: Tensor, unit: Tensor) -> Tensor:
    return (of_groups / torch.where(unit > 0, unit, 1)).round_().clamp_(0, TOP_SCALE)


def _better(best: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What loses less, group by group; losses come first."""
    if not best:
        return other
    less = other[0] < best[0]
    return tuple(torch.where(less, new, old) for new, old in zip(other, best, strict=True))
