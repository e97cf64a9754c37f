"""The setting that stretches rotary frequencies to reach past the length a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lolama_core.protocols.checks import check_boolean, check_integer, check_number, refused

RopeType = Literal["linear", "dynamic", "llama3", "yarn", "longrope"]
ROPE_TYPES: tuple[RopeType, ...] = ("linear", "dynamic", "llama3", "yarn", "longrope")

LONGEST = 1 << 24
"""Positions: far above any published model, far below what would hang a machine."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched to reach past the length a model was trained on.

    Args:
        type: ``linear`` (Chen 2023), ``dynamic`` NTK, ``llama3`` (Llama 3.1), ``yarn`` (Peng 2023) or
            ``longrope`` (Ding 2024).
        factor: How many times longer.
        original_max_seq_len: Positions the model was trained on.
        low_freq_factor, high_freq_factor: ``llama3``: the band that is interpolated, in rotations.
        beta_fast, beta_slow: ``yarn``: the same, in rotations over the original length.
        attention_factor: ``yarn``, ``longrope``: multiplies cos and sin; None for the paper's 0.1 ln(factor)
            + 1, or √(1 + ln(factor) / ln(original_max_seq_len)).
        truncate: ``yarn``: round the band to whole dimensions.
        short_factor, long_factor: ``longrope``: what each pair's frequency is divided by, in rows up to the
            original length, and in longer ones.
    """

    type: RopeType
    factor: float
    original_max_seq_len: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.type not in ROPE_TYPES:
            raise refused("rope_scaling type", self.type, "one of " + ", ".join(ROPE_TYPES))
        check_number("rope_scaling factor", self.factor, 1.0, 1e6)
        check_integer("rope_scaling original_max_seq_len", self.original_max_seq_len, LONGEST)
        for name in ("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"):
            check_number(f"rope_scaling {name}", getattr(self, name), 1e-6, 1e6)
        if self.high_freq_factor <= self.low_freq_factor:
            raise refused(
                "rope_scaling high_freq_factor",
                self.high_freq_factor,
                f"more than low_freq_factor ({self.low_freq_factor})",
            )
        if self.beta_fast < self.beta_slow:
            expected = f"no less than beta_slow ({self.beta_slow})"
            raise refused("rope_scaling beta_fast", self.beta_fast, expected)
        if self.attention_factor is not None:
            check_number("rope_scaling attention_factor", self.attention_factor, 1e-6, 1e6)
        check_boolean("rope_scaling truncate", self.truncate)
        for name in ("short_factor", "long_factor"):
            self._set_factors(name)

    def _set_factors(self, name: str) -> None:
        """Make a tuple of the factors of pairs, which a file has as a list."""
        label, factors = f"rope_scaling {name}", getattr(self, name)
        if not isinstance(factors, list | tuple) or bool(factors) != (self.type == "longrope"):
            raise refused(label, factors, "a list of numbers with longrope, and none without")
        for factor in factors:
            check_number(label, factor, 1e-6, 1e6)
        object.__setattr__(self, name, tuple(map(float, factors)))


def dynamic_beyond(scaling: RopeScaling | None) -> int | None:
    """Length past which the angles of a row depend on its length; None if they never do."""
    if scaling is None or scaling.type not in ("dynamic", "longrope"):
        return None
    return scaling.original_max_seq_len
