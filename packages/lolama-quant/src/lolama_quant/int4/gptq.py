"""GPTQ: codes chosen one input after another, each making up for what those before it lost.

A linear loses E[|(W - Ŵ) x|²] = tr(E H Eᵀ), with H = E[x xᵀ] and E = W - Ŵ (Frantar et al. 2022). With the
upper triangle R of H = R Rᵀ it is |E R|², and column j adds R_jj² |E_j + Σ E_k R_kj / R_jj|² to it, over the
k before it. So the best code j is the nearest to w_j + Σ E_k R_kj / R_jj, and R_jj² is how much it counts.
(GPTQ takes the inverse of H. Chee et al. 2023, "QuIP", section 3, show that both are the same.)

The grid of a block is fitted to what its weights are by then, and the scales of a group once more when it
comes to it. Then every group is chosen anew for what all others are by then: those behind it, too.

Where the Fisher information F of the outputs is known, tr(F E H Eᵀ) is lost instead (Tseng et al. 2025,
"YAQA"). With F = T Tᵀ it is |Tᵀ E R|². So rows make up for the rows before them, as inputs do for inputs.

Legend: N rows, K inputs; blocks have 256 of them, groups 32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lolama_quant.grouped.codes import GroupedRows
from lolama_quant.int4.least_squares import (
    FORM,
    GROUPS,
    TOP_CODE,
    Grid,
    by_group,
    check_numbers,
    fit_blocks,
    fit_whole,
    inverse,
    stored,
)

DAMPING = 0.01
"""What is added to the diagonal of H, in shares of its mean: other text differs from what was read."""

SWEEPS = 1
"""Times that all groups are chosen anew. They lose 7, 9 and 10 % less after one, two and three."""

_LEAST_MEAN = 1e-36
"""Below this mean the diagonal of H counts as zeros: float32 has too few digits for such numbers."""

PIECES = 16
"""Pieces of a weight's rows. Those of one make up for the pieces before it, but not for each other."""


def quantize_rows(
    weight: Tensor, name: str, moment: Tensor, outputs: Tensor | None = None
) -> GroupedRows:
    """(N, K) floating-point → its rows in four bits, whose numbers make up for each other.

    Args:
        weight: The weight of a linear.
        name: For errors.
        moment: (K, K) float32, E[x xᵀ] of its inputs.
        outputs: (N, N) float32, how much errors of its outputs count together; see `Sensitivity`. If not
            given, all count alike, and each row is chosen for itself.

    Raises:
        ModelError: naming the weight, if it holds NaN or Inf, or what is too large for float16 scales.
    """
    check_numbers(weight, name)
    moment, weight = damped(moment), weight.detach().float()
    triangle = upper_triangle(moment)
    if outputs is None:
        return _chosen(weight, moment, triangle).stored()
    across = upper_triangle(damped(outputs))
    error = torch.zeros_like(weight)
    pieces = []
    for here in _ranges(0, len(weight), -(-len(weight) // PIECES)):
        before = slice(here.start)
        owed = across[before, here].T @ error[before] / across.diagonal()[here, None]
        rows = _chosen(weight[here] + owed, moment, triangle)
        error[here] = rows.error - owed
        pieces.append(rows.stored())
    return GroupedRows(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def _chosen(weight: Tensor, moment: Tensor, triangle: Tensor) -> _Rows:
    """Rows (N, K) float32 whose codes are chosen, with H (K, K) and its triangle R."""
    rows = _Rows(weight)
    rows.choose_all(triangle)
    for _ in range(SWEEPS):
        rows.choose_again(moment)
    return rows


def damped(moment: Tensor) -> Tensor:
    """H with more on its diagonal, times a power of four. Of inputs that were always 0 that is all there is.

    Codes depend on the ratios in H alone. Its mean is brought near 1, or the products of very large or very
    small moments would be beyond float32. A power of four has a root, and changes no digit of either.
    """
    mean = float(moment.diagonal().double().mean())
    if mean < _LEAST_MEAN:
        return moment + torch.eye(len(moment), device=moment.device)
    half = 2.0 ** -(math.frexp(mean)[1] // 2)
    moment = moment * half * half  # one after the other: their product may be beyond float32
    return moment + moment.diagonal().mean() * DAMPING * torch.eye(
        len(moment), device=moment.device
    )


def upper_triangle(moment: Tensor) -> Tensor:
    """(K, K) → R, upper, with R Rᵀ = H: that of Cholesky, from the last input to the first."""
    flipped = moment.flip(0, 1)
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(flipped)
    if bool(failed):  # rounding has made it indefinite
        lower = torch.linalg.cholesky(flipped.double()).float()
    return lower.flip(0, 1)


class _Rows:
    """The rows of a weight while their codes are chosen.

    Attributes:
        weight: (N, K) float32.
        error: (N, K), the weight without what its codes stand for; zeros where none is chosen yet.
        codes: (N, K) uint8.
        grid: Zeros where nothing is chosen yet.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.error = weight, torch.zeros_like(weight)
        self.codes = torch.zeros_like(weight, dtype=torch.uint8)
        blocks = len(weight), -(-weight.shape[1] // FORM.block)
        of_blocks = [weight.new_zeros(blocks, dtype=torch.float16) for _ in range(2)]
        of_groups = [weight.new_zeros(*blocks, GROUPS) for _ in range(2)]
        self.grid = Grid(*of_blocks, *of_groups)

    def stored(self) -> GroupedRows:
        """The numbers as they are stored."""
        return stored(self.codes, self.grid)

    def choose_all(self, triangle: Tensor) -> None:
        """GPTQ, with the triangle R (K, K) of its inputs."""
        counts = triangle.diagonal().square()
        inputs = self.weight.shape[1]
        for number, block in enumerate(_ranges(0, inputs, FORM.block)):
            lost = self.error[:, : block.start] @ triangle[: block.start, block]  # (N, 256): E R
            wanted = self.weight[:, block] + _undone(lost, triangle[block, block])
            found = fit_blocks(by_group(wanted), by_group(counts[None, block])[0])
            for mine, its in zip(self.grid, found, strict=True):
                mine[:, number] = its[:, 0]
            for here in _ranges(block.start, block.stop, FORM.group):
                ahead = slice(block.start, here.start)
                own, inner = triangle[here, here], slice(here.start - block.start, None)
                late = lost[:, inner][:, : len(own)] + self.error[:, ahead] @ triangle[ahead, here]
                self._choose(here, self.weight[:, here] + _undone(late, own), own)

    def choose_again(self, moment: Tensor) -> None:
        """Each group once more, with H (K, K), where that makes a row lose less."""
        for block in _ranges(0, self.weight.shape[1], FORM.block):
            pull = self.error @ moment[:, block]  # (N, 256): E H
            for here in _ranges(block.start, block.stop, FORM.group):
                inner = slice(here.start - block.start, here.stop - block.start)
                own, before = moment[here, here], self.error[:, here].clone()
                now = self.weight[:, here] - before
                wanted = now + torch.linalg.solve(own, pull[:, inner], left=False)
                self._choose(here, wanted, upper_triangle(own), now)
                pull += (self.error[:, here] - before) @ moment[here, block]

    def _choose(
        self, here: slice, wanted: Tensor, triangle: Tensor, now: Tensor | None = None
    ) -> None:
        """Codes and scales of the group ``here``, so that little of |(wanted - Ŵ) R|² is lost.

        Args:
            here: Its inputs.
            wanted: (N, 32).
            triangle: (32, 32), R.
            now: (N, 32), what its codes stand for, if some are chosen.
        """
        block, group = divmod(here.start // FORM.group, GROUPS)
        of_block = self.grid.block_scale[:, block], self.grid.block_minimum[:, block]
        whole = self.grid.scale[:, block, group], self.grid.minimum[:, block, group]
        near = [(unit.float() * one)[:, None] for unit, one in zip(of_block, whole, strict=True)]
        counts = triangle.diagonal().square()
        found = fit_whole(wanted[:, None], counts, (near[0], near[1]), of_block)
        scale, minimum = (
            unit.float() * one[:, 0] for unit, one in zip(of_block, found, strict=True)
        )
        codes, error = _one_by_one(wanted, triangle, scale, minimum)
        better = torch.ones_like(scale, dtype=torch.bool)
        if now is not None:
            better = _lost(error, triangle) < _lost(wanted - now, triangle)
        for mine, its in zip(whole, found, strict=True):
            mine.copy_(torch.where(better, its[:, 0], mine))
        error = error + (self.weight[:, here] - wanted)
        for mine, its in ((self.codes[:, here], codes), (self.error[:, here], error)):
            mine.copy_(torch.where(better[:, None], its, mine))


def _one_by_one(
    wanted: Tensor, triangle: Tensor, scale: Tensor, minimum: Tensor
) -> tuple[Tensor, Tensor]:
    """The codes (N, 32) for ``wanted`` (N, 32) under scales and minimums (N,), and what they are off by."""
    steps = inverse(scale)
    columns = wanted.T.contiguous()  # (32, N)
    codes, error = torch.empty_like(columns), torch.empty_like(columns)
    for place, number in enumerate(columns):
        owed = triangle[:place, place] @ error[:place] / triangle[place, place]
        codes[place] = ((number + owed + minimum) * steps).round_().clamp_(0, TOP_CODE)
        error[place] = number - (codes[place] * scale - minimum)
    return codes.T, error.T


def _undone(lost: Tensor, triangle: Tensor) -> Tensor:
    """X with X R = lost: what some inputs need to have on top to make up for the inputs before them."""
    solved: Tensor = torch.linalg.solve_triangular(triangle, lost, upper=True, left=False)
    return solved


def _lost(error: Tensor, triangle: Tensor) -> Tensor:
    """(N,): |E R|² of each row."""
    return (error @ triangle).square().sum(-1)


def _ranges(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))
