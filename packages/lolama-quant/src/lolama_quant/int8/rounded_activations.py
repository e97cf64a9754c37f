"""Activations rounded to 8 bits, as native/rounded.h does it for products with int8 weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lolama_quant.int8.absmax import LIMIT

GROUP = 64
HEAVY = 3.5
_SMALLEST = 1e-30


def round_activations(x: Tensor) -> Tensor:
    """(M, K) → the nearest float32 that the native product can multiply.

    Values are rounded in groups of 64, to whole multiples of a 127th of the largest. What that leaves of a
    group is rounded again, if its largest value is more than 3.5 times its root mean square. A group with NaN
    or Inf is NaN.
    """
    rows, inputs = x.shape
    padded = F.pad(x.to(torch.float32), (0, -inputs % GROUP))
    groups = padded.view(rows, padded.shape[1] // GROUP, GROUP)
    near, rest = _round(groups)
    again, _ = _round(rest)
    heavy = groups.abs().amax(-1) > HEAVY * groups.square().mean(-1).sqrt()
    rounded = torch.where(heavy[..., None], near + again, near)
    spoiled = (groups * 0).sum(-1, keepdim=True)  # 0, or NaN
    return (rounded + spoiled).view(padded.shape)[:, :inputs]


def _round(groups: Tensor) -> tuple[Tensor, Tensor]:
    """(M, G, 64) → what each value is rounded to, and what is left."""
    most = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(most > _SMALLEST, LIMIT / most, 0)
    near = (groups * inverse).round_() * (most / LIMIT)
    near = torch.where(inverse > 0, near, 0)
    return near, groups - near
