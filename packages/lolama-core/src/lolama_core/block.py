"""One transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from lolama_core.attention import Attention, AttentionPlan, LastPositions
from lolama_core.config import LlamaConfig
from lolama_core.feed_forward import FeedForward
from lolama_core.norm import RMSNorm
from lolama_core.protocols import KVCache


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalized copy and added back to the stream (pre-norm)."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.attention_norm = RMSNorm(config.d_model, config.eps)
        self.feed_forward = FeedForward(config)
        self.ffn_norm = RMSNorm(config.d_model, config.eps)

    def forward(
        self,
        x: Tensor,
        plan: AttentionPlan,
        cache: KVCache | None,
        last: LastPositions | None = None,
    ) -> Tensor:
        """(B, T, D) → (B, T, D), or of the ``last`` positions alone (B, 1, D)."""
        normed = self.attention_norm(x).to(plan.dtype)
        if last is not None:
            x = last.take(x)
        x = x + self.attention(normed, plan, cache, last)
        x = x + self.feed_forward(self.ffn_norm(x).to(plan.dtype))
        return x
