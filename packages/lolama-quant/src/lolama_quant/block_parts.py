"""What kernels for whole decoding steps read of a block, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from lolama_core.protocols.decoder_kernel import BlockWeights

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
"""What the gate of a feed-forward network may go through. The place of each is its number in C."""

NORMS = (
    *("attention_norm", "ffn_norm", "q_norm", "k_norm"),
    *("attention_post_norm", "ffn_post_norm"),
)
"""The norms that a block may have, in the order of native/decoder.c."""


def norms_of(block: BlockWeights) -> dict[str, Tensor]:
    """Name → weight of each norm that a block has."""
    return {name: norm for name in NORMS if (norm := getattr(block, name)) is not None}
