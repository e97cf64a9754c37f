"""By how much a position turns each rotary pair, and how that is stretched for longer texts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lolama_core.model.rope_scaling import RopeScaling


def inverse_frequencies(
    head_dim: int, base: float, scaling: RopeScaling | None, seq_len: int = 0
) -> tuple[Tensor, float]:
    """Angle per position of each rotary pair, and the factor on cos and sin.

    Args:
        head_dim: Width of a head, even.
        base: θ.
        scaling: How the frequencies are stretched, or None (Su et al. 2021, section 3.2.2).
        seq_len: ``dynamic`` and ``longrope`` only: length of the whole sequence; no more than the original
            changes nothing.

    Returns:
        (head_dim / 2,) float32 on the CPU, and the attention factor (1.0 but for ``yarn`` and ``longrope``).
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
    if scaling.type == "longrope":
        is_long = seq_len > scaling.original_max_seq_len
        factors = scaling.long_factor if is_long else scaling.short_factor
        divisors = torch.tensor(factors, device="cpu") * base**exponents
        return 1.0 / divisors, _longrope_factor(scaling)
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


def _longrope_factor(scaling: RopeScaling) -> float:
    """Ding et al. 2024, section 3.4: how much cos and sin grow with the stretched length."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_max_seq_len))


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
