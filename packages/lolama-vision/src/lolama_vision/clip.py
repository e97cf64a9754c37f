"""The vision transformer of CLIP and SigLIP: a square of pixels → one feature for each patch.

CLIP (Radford et al. 2021) has a class token and a norm in front of its layers. SigLIP (Zhai et al. 2023) has
neither, and a bias in its patch embedding. The rest is the same.

Legend: N tiles, S pixels a side, P features a tile, Dv width, Df width of a feature, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_vision.config import VisionConfig
from lolama_vision.linear import Linear


class CLIPVisionEncoder(nn.Module):
    """Patches, maybe a class token, learned positions, and the pre-norm blocks up to the last feature layer.

    Blocks behind that layer have no part in LLaVA, nor has SigLIP's pooling head: they are not even made.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_size
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=config.patch_bias)
        self.class_embedding = nn.Parameter(torch.zeros(width)) if config.class_token else None
        count = config.grid**2 + int(config.class_token)
        self.position_embedding = nn.Parameter(torch.zeros(count, width))
        self.pre_norm = LayerNorm(width, config.eps) if config.pre_norm else None
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers_used))
        self.post_norm = LayerNorm(width, config.eps) if config.post_norm else None

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, S, S) → (N, P, Df), as wide as activations are: float32 on a CPU."""
        weight, bias = self.patch_embedding.weight, self.patch_embedding.bias
        # A CPU does in float32 all that is not a linear, which chooses for itself.
        on_cpu = weight.device.type == "cpu"
        stream = torch.promote_types(weight.dtype, torch.float32) if on_cpu else weight.dtype
        # (N, Dv, grid, grid)
        patches = F.conv2d(
            pixel_values.to(stream),
            weight.to(stream),
            None if bias is None else bias.to(stream),
            stride=self.config.patch_size,
        )
        x = patches.flatten(2).transpose(1, 2)  # (N, grid², Dv)
        if self.class_embedding is not None:
            first = self.class_embedding.to(stream).expand(len(x), 1, -1)
            x = torch.cat((first, x), dim=1)
        positions: Tensor = self.position_embedding
        if self.config.bucket_positions:
            positions = positions[bucketed_positions(self.config.grid).to(positions.device)]
        x = x + positions.to(stream)
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        wanted = self.config.feature_layers
        outputs = {0: x} if 0 in wanted else {}
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if number in wanted:
                outputs[number] = x
        # (N, 1 + grid², Df) with a class token. Where somebody took layers out, the last one left counts.
        features = torch.cat([outputs.get(number, x) for number in wanted], dim=-1)
        if self.config.class_token and not self.config.keep_class_token:
            features = features[:, 1:]
        return features if self.post_norm is None else self.post_norm(features)


def bucketed_positions(grid: int) -> Tensor:
    """The position of each patch of a square: (grid²,) int64.

    Where a patch begins, as a fraction of the side, is looked up among the sides' own fractions. Both are
    rounded to float32, so a patch of some grids, such as 19, has the position of its neighbor. Idefics3 was
    trained so.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    begins = torch.arange(grid, **options) * (1.0 / torch.tensor(grid, device="cpu"))
    edges = torch.arange(1 / grid, 1.0, 1 / grid, **options)
    buckets = torch.bucketize(begins.clamp(max=1.0 - 1e-6), edges, right=True)
    return (buckets[:, None] * grid + buckets).flatten()


class LayerNorm(nn.Module):
    """Normalizes over the width, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., Dv) → (..., Dv) in the dtype of ``x``."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), weight.shape, weight, bias, self.eps).to(x.dtype)


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalized copy and added back to the stream."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = LayerNorm(config.width, config.eps)
        self.feed_forward = FeedForward(config)
        self.ffn_norm = LayerNorm(config.width, config.eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, Dv) → (N, P, Dv)."""
        x = x + self.attention(self.attention_norm(x))
        x = x + self.feed_forward(self.ffn_norm(x))
        return x


class Attention(nn.Module):
    """Every patch sees every patch."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = Linear(config.width, config.width)
        self.k_proj = Linear(config.width, config.width)
        self.v_proj = Linear(config.width, config.width)
        self.o_proj = Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, Dv) → (N, P, Dv)."""
        tiles, length, width = x.shape
        queries, keys, values = (
            projection(x).view(tiles, length, self.num_heads, -1).transpose(1, 2)  # (N, H, P, hd)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(queries, keys, values)
        output: Tensor = self.o_proj(attended.transpose(1, 2).reshape(tiles, length, width))
        return output


class FeedForward(nn.Module):
    """Widen, activate, narrow."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.fc1 = Linear(config.width, config.mlp_dim)
        self.fc2 = Linear(config.mlp_dim, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, Dv) → (N, P, Dv)."""
        output: Tensor = self.fc2(self.activation(self.fc1(x)))
        return output


def quick_gelu(x: Tensor) -> Tensor:
    """x·σ(1.702 x), OpenAI's approximation of GELU. With the exact one the features come out wrong."""
    # One tensor less than x · sigmoid(1.702 x); torch multiplies by a number in place and can still train.
    return F.silu(1.702 * x).mul_(1 / 1.702)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by a tanh, as SigLIP was trained with."""
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
}
