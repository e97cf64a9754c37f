"""One transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from lolama_core.model.attention import Attention
from lolama_core.model.config import LlamaConfig
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.masks import PassPlan
from lolama_core.model.norm import RMSNorm
from lolama_core.protocols import KVCache


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalized copy and added back to the stream (pre-norm)."""

    def __init__(self, config: LlamaConfig, layer: int, kind: int = 0) -> None:
        super().__init__()
        self.attention = Attention(config, layer, kind)
        self.attention_norm = RMSNorm(config.d_model, config.eps)
        self.feed_forward = FeedForward(config)
        self.ffn_norm = RMSNorm(config.d_model, config.eps)

    def forward(self, x: Tensor, plan: PassPlan, cache: KVCache | None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        x = x + self.attention(self.attention_norm(x).to(plan.dtype), plan, cache)
        x = x + self.feed_forward(self.ffn_norm(x).to(plan.dtype))
        return x
