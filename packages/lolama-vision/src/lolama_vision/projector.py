"""From the encoder's features to embeddings that the language model reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_vision.clip import LayerNorm
from lolama_vision.config import VLMConfig
from lolama_vision.linear import Linear


class Projector(nn.Module):
    """Linear, exact GELU, linear (LLaVA-1.5, Liu et al. 2023), behind a norm in VipLLaVA.

    Attributes:
        image_newline: (D,), ends each row of patches of a picture in tiles; None without tiles.
    """

    def __init__(self, config: VLMConfig) -> None:
        super().__init__()
        width = config.text_width
        features = config.vision_config.feature_width
        eps = config.projector_norm_eps
        self.norm = LayerNorm(features, eps) if eps is not None else None
        self.linear_1 = Linear(features, width, bias=config.projector_bias)
        self.linear_2 = Linear(width, width, bias=config.projector_bias)
        tiled = config.vision_config.preprocessing.mode == "tiles"
        self.image_newline = nn.Parameter(torch.zeros(width)) if tiled else None

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, Df) → (N, P, D)."""
        if self.norm is not None:
            features = self.norm(features)
        projected: Tensor = self.linear_2(F.gelu(self.linear_1(features)))
        return projected


class PixelShuffleProjector(nn.Module):
    """The features of a square of patches side by side, and one linear (Idefics3, SmolVLM)."""

    image_newline = None

    def __init__(self, config: VLMConfig) -> None:
        super().__init__()
        self.side = config.vision_config.downscale
        features = config.vision_config.feature_width * self.side**2
        self.linear = Linear(features, config.text_width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, Df) → (N, P / side², D)."""
        tiles, count, width = features.shape
        squares = int(count**0.5) // self.side  # along each side
        grid = features.view(tiles, squares, self.side, squares, self.side, width)
        # Patches of a square stand next to each other, row by row.
        joined = grid.transpose(2, 3).reshape(tiles, squares**2, -1)
        projected: Tensor = self.linear(joined)
        return projected


class AveragePoolProjector(nn.Module):
    """The average of the features of a square of patches, an RMSNorm, and one linear (Gemma 3)."""

    image_newline = None

    def __init__(self, config: VLMConfig) -> None:
        super().__init__()
        assert config.projector_norm_eps is not None, "the configuration was checked"
        self.side = config.vision_config.downscale
        features = config.vision_config.feature_width
        self.norm = RMSNorm(features, config.projector_norm_eps)
        self.linear = Linear(features, config.text_width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, Df) → (N, P / side², D)."""
        tiles, count, width = features.shape
        grid = int(count**0.5)  # along each side
        square = features.transpose(1, 2).reshape(tiles, width, grid, grid)
        pooled = F.avg_pool2d(square, self.side).flatten(2).transpose(1, 2)
        projected: Tensor = self.linear(self.norm(pooled))
        return projected


class RMSNorm(nn.Module):
    """Divides by the root of the mean square over the features, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., Df) → (..., Df) in the dtype of ``x``."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight.float()).to(x.dtype)


_PROJECTORS: dict[str, type[Projector | PixelShuffleProjector | AveragePoolProjector]] = {
    "mlp": Projector,
    "pixel_shuffle": PixelShuffleProjector,
    "average_pool": AveragePoolProjector,
}


def make_projector(config: VLMConfig) -> Projector | PixelShuffleProjector | AveragePoolProjector:
    """The projector of a configuration."""
    return _PROJECTORS[config.projector](config)
