"""What the gate of a feed-forward network goes through."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def gated(gate, up, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    """activation(gate) · up, float32, of one of `block_parts.ACTIVATIONS`: its input times a share of it."""
    if ACTIVATION == "gelu":
        share = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh u) / 2 is sigmoid(2 u); the number is 2 √(2 / π).
        share = tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    else:
        share = tl.sigmoid(gate)
    return gate * share * up
