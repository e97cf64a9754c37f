"""Rotary position embedding: positions turn pairs of query and key dimensions by an angle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.model.config import LlamaConfig
from lolama_core.model.rope_frequencies import inverse_frequencies
from lolama_core.model.rope_scaling import dynamic_beyond


class RotaryEmbedding(nn.Module):
    """cos and sin of every position, computed once a pass and shared by all layers.

    Computed from the frequencies rather than looked up: a table of 128k positions would cost 64 MB, while
    one step's worth costs a few microseconds.
    """

    inv_freq: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim, self.rotary_dim = config.head_dim, config.head_dim
        if config.rotary_dim is not None:
            self.rotary_dim = config.rotary_dim
        self.base, self.scaling = config.rope_base, config.rope_scaling
        frequencies, self.attention_factor = inverse_frequencies(
            self.rotary_dim, self.base, self.scaling
        )
        # On the CPU even when the model is built on the meta device: it is computed, never loaded.
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves go to the frequencies, conversions past them: bfloat16 cannot even hold position 257."""

        def keep_precision(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return changed if changed.dtype == torch.float32 else tensor.to(changed.device)

        applied: Self = super()._apply(keep_precision, recurse)  # type: ignore[no-untyped-call]
        return applied

    def forward(self, positions: Tensor, totals: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(B, T) int64 positions → cos and sin as `rotate` takes them, each (B, 1, T, head_dim) float32.

        ``totals`` are the lengths of the whole rows; only dynamic scaling looks at them.
        """
        inv_freq, limit = self.inv_freq, dynamic_beyond(self.scaling)
        if limit is not None and max(totals) > limit:
            # (rotary_dim / 2,) each
            rows = [
                inverse_frequencies(self.rotary_dim, self.base, self.scaling, total)[0]
                for total in totals
            ]
            inv_freq = torch.stack(rows)[:, None, None].to(positions.device)
        angles = positions[:, None, :, None] * inv_freq  # (B, 1, T, rotary_dim / 2) float32
        cos, sin = angles.cos(), angles.sin()
        if self.attention_factor != 1:
            cos, sin = cos * self.attention_factor, sin * self.attention_factor
        if self.rotary_dim < self.head_dim:  # the last pairs of each half keep still
            still = (0, (self.head_dim - self.rotary_dim) // 2)
            cos, sin = F.pad(cos, still, value=1.0), F.pad(sin, still)
        # The same angle for both halves: dimension i turns together with i + head_dim / 2, the layout in
        # which Hugging Face stores q and k.
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (B, H, T, head_dim) by the angles of its positions, in float32; returns the dtype of ``x``.

    (a, b) becomes (a cos - b sin, b cos + a sin): the first half of ``sin`` carries the minus sign.
    """
    first, second = x.chunk(2, dim=-1)
    turned = (x * cos).addcmul_(torch.cat((second, first), dim=-1), sin)
    return turned.to(x.dtype)
