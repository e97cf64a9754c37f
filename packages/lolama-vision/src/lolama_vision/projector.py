"""From the encoder's features to embeddings that the language model reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_vision.config import VLMConfig
from lolama_vision.linear import Linear


class Projector(nn.Module):
    """Linear, exact GELU, linear (LLaVA-1.5, Liu et al. 2023).

    Attributes:
        image_newline: (D,), ends each row of patches of a picture in tiles; None without tiles.
    """

    def __init__(self, config: VLMConfig) -> None:
        super().__init__()
        width = config.text_width
        self.linear_1 = Linear(config.vision_config.width, width, bias=config.projector_bias)
        self.linear_2 = Linear(width, width, bias=config.projector_bias)
        tiled = config.vision_config.preprocessing.mode == "tiles"
        self.image_newline = nn.Parameter(torch.zeros(width)) if tiled else None

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, Dv) → (N, P, D)."""
        projected: Tensor = self.linear_2(F.gelu(self.linear_1(features)))
        return projected
