"""CLIP's vision transformer (Radford et al. 2021): a square of pixels → one feature for each patch.

Legend: N tiles, S pixels a side, P features a tile, Dv width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_vision.config import VisionConfig
from lolama_vision.linear import Linear


class CLIPVisionEncoder(nn.Module):
    """Patches, a class token, learned positions, and the pre-norm blocks up to the feature layer.

    Blocks behind the feature layer and the final norm have no part in LLaVA: they are not even made.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_size
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.position_embedding = nn.Parameter(torch.zeros(config.grid**2 + 1, width))
        self.pre_norm = LayerNorm(width, config.eps)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers_used))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, S, S) → (N, P, Dv), as wide as activations are: float32 on a CPU."""
        weight = self.patch_embedding.weight
        # A CPU does in float32 all that is not a linear, which chooses for itself.
        on_cpu = weight.device.type == "cpu"
        stream = torch.promote_types(weight.dtype, torch.float32) if on_cpu else weight.dtype
        # (N, Dv, grid, grid)
        patches = F.conv2d(
            pixel_values.to(stream), weight.to(stream), stride=self.config.patch_size
        )
        x = patches.flatten(2).transpose(1, 2)  # (N, grid², Dv)
        first = self.class_embedding.to(stream).expand(len(x), 1, -1)
        x = torch.cat((first, x), dim=1) + self.position_embedding.to(stream)
        x = self.pre_norm(x)
        for layer in self.layers:
            x = layer(x)
        features: Tensor = x if self.config.keep_class_token else x[:, 1:]
        return features


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
        self.activation = quick_gelu if config.activation == "quick_gelu" else F.gelu
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
