"""The SwiGLU feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.model.config import LlamaConfig
from lolama_core.model.linear import Linear


class FeedForward(nn.Module):
    """w_down(silu(w_gate x) · w_up x) (Shazeer 2020)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.activation = None if config.activation == "silu" else config.activation
        self.w_gate = Linear(config.d_model, config.hidden_dim, bias=config.mlp_bias)
        self.w_up = Linear(config.d_model, config.hidden_dim, bias=config.mlp_bias)
        self.w_down = Linear(config.hidden_dim, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        hidden: Tensor = self.w_down(self.activate(self.w_gate(x)).mul_(self.w_up(x)))
        return hidden

    def activate(self, gate: Tensor) -> Tensor:
        """(..., hidden_dim) → the same, element by element."""
        if self.activation is None:
            return F.silu(gate)
        return F.gelu(gate, approximate="tanh" if self.activation == "gelu_tanh" else "none")
