"""Rotary position embedding: positions turn pairs of query and key dimensions by an angle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from lolama_core.model.config import LlamaConfig, RopeScaling


def inverse_frequencies(
    head_dim: int, base: float, scaling: RopeScaling | None, seq_len: int = 0
) -> tuple[Tensor, float]:
    """Angle per position of each rotary pair, and the factor on cos and sin.

    Args:
        head_dim: Width of a head, even.
        base: θ.
        scaling: How the frequencies are stretched, or None (Su et al. 2021, section 3.2.2).
        seq_len: ``dynamic`` only: length of the whole sequence; shorter than the original changes nothing.

    Returns:
        (head_dim / 2,) float32 on the CPU, and the attention factor (1.0 but for ``yarn``).
        The same numbers as transformers' ``ROPE_INIT_FUNCTIONS``.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    if scaling is None:
        return 1.0 / base**exponents, 1.0
    if scaling.type == "linear":
        return 1.0 / base**exponents / scaling.factor, 1.0
    if scaling.type == "dynamic":
        original = scaling.original_max_seq_len
        stretch = scaling.factor * max(seq_len, original) / original - (scaling.factor - 1)
        if head_dim > 2:  # a single pair turns by one radian a position whatever the base
            base = base * stretch ** (head_dim / (head_dim - 2))
        return 1.0 / base**exponents, 1.0
    if scaling.type == "llama3":
        return _llama3(1.0 / base**exponents, scaling), 1.0
    return _yarn(head_dim, base, exponents, scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Slow pairs are divided by the factor, fast ones kept, those between blended (Llama 3.1)."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelengths = 2 * math.pi / frequencies
    rotations = scaling.original_max_seq_len / wavelengths
    keep = (rotations - low) / (high - low)
    blended = (1 - keep) * frequencies / scaling.factor + keep * frequencies
    stretched = torch.where(rotations < low, frequencies / scaling.factor, blended)
    return torch.where(rotations > high, frequencies, stretched)


def _yarn(
    head_dim: int, base: float, exponents: Tensor, scaling: RopeScaling
) -> tuple[Tensor, float]:
    """Peng et al. 2023, section 3.2: a ramp over dimensions from kept to interpolated."""

    def dimension_of(rotations: float) -> float:
        original = scaling.original_max_seq_len
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    first, last = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    # A float: near a base of 1 no whole number of a tensor's kind holds it.
    width = float(last - first) if last != first else 0.001
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float32, device="cpu") - first) / width).clamp(
        0, 1
    )
    kept = 1.0 / base**exponents
    interpolated = 1.0 / (scaling.factor * base**exponents)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0
    return interpolated * ramp + kept * (1 - ramp), factor


class RotaryEmbedding(nn.Module):
    """cos and sin of every position, computed once a pass and shared by all layers.

    Computed from the frequencies rather than looked up: a table of 128k positions would cost 64 MB, while
    one step's worth costs a few microseconds.
    """

    inv_freq: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim, self.base, self.scaling = (
            config.head_dim,
            config.rope_base,
            config.rope_scaling,
        )
        frequencies, self.attention_factor = inverse_frequencies(
            self.head_dim, self.base, self.scaling
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

    @property
    def dynamic_beyond(self) -> int | None:
        """Length past which the base depends on the length of the row; None if it never does."""
        if self.scaling is not None and self.scaling.type == "dynamic":
            return self.scaling.original_max_seq_len
        return None

    def forward(self, positions: Tensor, totals: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(B, T) int64 positions → cos and sin as `rotate` takes them, each (B, 1, T, head_dim) float32.

        ``totals`` are the lengths of the whole rows; only dynamic scaling looks at them.
        """
        inv_freq = self.inv_freq
        if self.dynamic_beyond is not None and max(totals) > self.dynamic_beyond:
            rows = [
                inverse_frequencies(self.head_dim, self.base, self.scaling, total)[0]
                for total in totals
            ]
            inv_freq = torch.stack(rows)[:, None, None].to(
                positions.device
            )  # (B, 1, 1, head_dim / 2)
        angles = positions[:, None, :, None] * inv_freq  # (B, 1, T, head_dim / 2) float32
        cos, sin = angles.cos(), angles.sin()
        if self.attention_factor != 1:
            cos, sin = cos * self.attention_factor, sin * self.attention_factor
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
