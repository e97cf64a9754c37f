"""What is seen of a pass through a model.

Legend: B rows, T new positions, L all positions so far, D width of the model, H query heads, K heads of keys
and values, hd width of a head, F width of a feed-forward network, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ObservedLayer:
    """What one block computed in one pass: float32 tensors on the CPU.

    Attributes:
        cos, sin: (B or 1, T, hd / 2), of the angles by which RoPE turned the pairs of queries and keys.
        queries: (B, H, T, hd), turned.
        keys, values: (B, K, L, hd) of all positions so far, keys turned. A block with a sliding window has
            no more positions than its queries see.
        attention: (B, H, T, L), how much of each value each query takes. A row sums to one.
        heads: (B, T, H, hd), what each head hands to ``o_proj``: values, weighed by ``attention``.
        after_attention: (B, T, D), the residual stream once attention was added.
        gate: (B, T, F), the activated gate of each neuron; None for a mixture of experts.
        neurons: (B, T, F), the gate times what it lets through; None for a mixture of experts.
        after: (B, T, D), the residual stream behind the block.
    """

    cos: Tensor
    sin: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    attention: Tensor
    heads: Tensor
    after_attention: Tensor
    gate: Tensor | None
    neurons: Tensor | None
    after: Tensor


@dataclass(frozen=True)
class ObservedPass:
    """One pass of new positions through all blocks.

    Attributes:
        positions: (B, T) int64, where the new positions stand in their texts.
        embeds: (B, T, D) float32 on the CPU, the residual stream before the first block.
        layers: The blocks, in order.
    """

    positions: Tensor
    embeds: Tensor
    layers: tuple[ObservedLayer, ...]
