"""Activations rounded as native/grouped.h does it for products with grouped weights, by torch's operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lolama_core.protocols.grouped import GroupFormat

BLOCK = 256
BYTES = 127
"""The largest magnitude of a whole number that codes of four bits are multiplied with."""
PAIRS = 2000
"""The same for codes of eight bits."""
HEAVY = 8.0
_SMALLEST = 1e-30


def round_blocks(x: Tensor, form: GroupFormat) -> Tensor:
    """(M, K) → the nearest float32 that the native product can multiply with weights of a format.

    Values are rounded in blocks of 256, to whole multiples of a part of the largest: of a 2000th for codes of
    eight bits, and of a 127th for those of four. What the latter leaves of a block is rounded again, if its
    largest value is more than 5 times its root mean square. A block with NaN or Inf is NaN.
    """
    rows, inputs = x.shape
    padded = F.pad(x.to(torch.float32), (0, -inputs % BLOCK))
    blocks = padded.view(rows, padded.shape[1] // BLOCK, BLOCK)
    spoiled = (blocks * 0).sum(-1, keepdim=True)  # 0, or NaN
    if form.bits == 8:
        rounded, _ = _round(blocks, PAIRS)
    else:
        near, rest = _round(blocks, BYTES)
        again, _ = _round(rest, BYTES)
        heavy = blocks.abs().amax(-1) > HEAVY * blocks.square().mean(-1).sqrt()
        rounded = torch.where(heavy[..., None], near + again, near)
    return (rounded + spoiled).view(padded.shape)[:, :inputs]


def _round(blocks: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """(M, B, 256) → what each value is rounded to, and what is left."""
    most = blocks.abs().amax(-1, keepdim=True)
    inverse = torch.where(most > _SMALLEST, levels / most, 0)
    near = (blocks * inverse).round_() * (most / levels)
    near = torch.where(inverse > 0, near, 0)
    return near, blocks - near
