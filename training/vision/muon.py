"""Muon (Jordan et al. 2024) with products in float32.

`torch.optim.Muon` takes them in bfloat16, which a processor that does not multiply it emulates: there one
step of the optimizer takes longer than the gradients do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# The coefficients of the quintic iteration that drives all singular values toward 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized; its size matches that of an Adam step (Liu et al. 2025).

    Args:
        matrices: Parameters of two dimensions.
        lr: Learning rate, as AdamW's.
        momentum: Share of the sum of earlier gradients that is kept.
        weight_decay: Decoupled.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.02,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix by its gradient."""
        assert closure is None
        for group in self.param_groups:
            for matrix in group["params"]:
                sums = self.state[matrix].setdefault("sums", torch.zeros_like(matrix))
                sums.lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(sums, group["momentum"])  # Nesterov's
                size = 0.2 * math.sqrt(max(matrix.shape))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.sub_(orthogonal(ahead), alpha=group["lr"] * size)


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """(..., M, N) → the nearest semi-orthogonal matrices, roughly."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    result: Tensor = x.mT if tall else x
    return result
