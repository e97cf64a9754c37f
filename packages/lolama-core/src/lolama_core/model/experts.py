"""A mixture of experts: many feed-forward networks, of which each token goes through a few."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from lolama_core.model.config import LlamaConfig
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.linear import logits_product


class Router(nn.Module):
    """Scores of the networks that a token may go through: a small product that decides much.

    It is no `nn.Linear`, so that it keeps its precision where linears are quantized.
    """

    def __init__(self, d_model: int, choices: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(choices, d_model))
        nn.init.normal_(self.weight, std=d_model**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) → float32 scores (N, choices)."""
        return logits_product(x, self.weight, None).float()


class Experts(nn.Module):
    """Σ pᵢ expertᵢ(x) over the k experts that the router scores best (Shazeer et al. 2017, Mixtral).

    All other experts are not read. p is the softmax over all experts, and Mixtral divides it by the sum of
    the k that are chosen. Qwen2-MoE adds a shared expert, which every token goes through, times
    sigmoid(gate x). Legend: N = B T tokens, E experts, k of them for each token.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        count, per_token, width = config.num_experts, config.experts_per_token, config.expert_dim
        assert count is not None and per_token is not None and width is not None, (
            "it has all or none"
        )
        self.per_token, self.normalize = per_token, config.normalize_expert_weights
        self.router = Router(config.d_model, count)
        of_one = replace(config, hidden_dim=width)
        self.experts = nn.ModuleList(FeedForward(of_one) for _ in range(count))
        self.shared_expert: FeedForward | None = None
        self.shared_gate: Router | None = None
        if config.shared_expert_dim is not None:
            self.shared_expert = FeedForward(replace(config, hidden_dim=config.shared_expert_dim))
            self.shared_gate = Router(config.d_model, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        tokens = x.flatten(0, -2)  # (N, D)
        weights, chosen = self.route(tokens)
        mixed = (self.answers(tokens, chosen) * weights[..., None]).sum(dim=1)  # (N, D)
        if self.shared_expert is not None and self.shared_gate is not None:
            mixed = mixed + self.shared_gate(tokens).sigmoid() * self.shared_expert(tokens)
        return mixed.to(x.dtype).view_as(x)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) → float32 weights and numbers of the experts of each token, (N, k) each."""
        weights, chosen = self.router(tokens).softmax(dim=-1).topk(self.per_token, dim=-1)
        if self.normalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights, chosen

    def answers(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """(N, D) and (N, k) → what each token's experts make of it, (N, k, D).

        Tokens are sorted by expert, so that each expert runs once, over all tokens that chose it.
        """
        order = chosen.flatten().argsort(stable=True)  # (N k,): places in `chosen`, by expert
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        parts = torch.split(tokens[order // self.per_token], counts)
        answers = torch.cat(
            [expert(part) for expert, part in zip(self.experts, parts, strict=True) if len(part)]
        )
        return answers[order.argsort()].view(*chosen.shape, -1)
