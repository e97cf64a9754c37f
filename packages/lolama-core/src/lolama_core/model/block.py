"""One transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from lolama_core.model.attention import Attention
from lolama_core.model.config import LlamaConfig
from lolama_core.model.experts import Experts
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.masks import PassPlan
from lolama_core.model.norm import RMSNorm
from lolama_core.protocols import KVCache


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalized copy and added back to the stream (pre-norm).

    Descendants of LLaMA may normalize what is added, instead or as well, and scale it; see `Switches`.
    """

    def __init__(self, config: LlamaConfig, layer: int, kind: int = 0) -> None:
        super().__init__()
        self.attention = Attention(config, layer, kind)
        self.feed_forward = Experts(config) if config.has_experts(layer) else FeedForward(config)
        self.attention_norm: nn.Module = nn.Identity()
        self.ffn_norm: nn.Module = nn.Identity()
        self.attention_post_norm: RMSNorm | None = None
        self.ffn_post_norm: RMSNorm | None = None
        if config.norms != "after":
            self.attention_norm = RMSNorm(config.d_model, config.eps)
            self.ffn_norm = RMSNorm(config.d_model, config.eps)
        if config.norms != "before":
            self.attention_post_norm = RMSNorm(config.d_model, config.eps)
            self.ffn_post_norm = RMSNorm(config.d_model, config.eps)
        self.residual_scale = config.residual_scale

    def forward(self, x: Tensor, plan: PassPlan, cache: KVCache | None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        attended = self.attention(self.attention_norm(x).to(plan.dtype), plan, cache)
        x = self.add(x, attended, self.attention_post_norm)
        return self.add(x, self.feed_forward(self.ffn_norm(x).to(plan.dtype)), self.ffn_post_norm)

    def add(self, x: Tensor, change: Tensor, post_norm: RMSNorm | None) -> Tensor:
        """The stream (B, T, D) with a change of it."""
        if post_norm is not None:
            change = post_norm(change)
        if self.residual_scale is not None:
            change = change * self.residual_scale
        return x + change
